"""What a fit is said to cost before it starts."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from mrsds_ppl.analysis import posterior
from mrsds_ppl.analysis.weights import ascent
from mrsds_ppl.analysis.weights.tangents import tangents
from mrsds_ppl.build import make_guide, make_model
from mrsds_ppl.commands.check import check
from mrsds_ppl.config import cost as counted
from mrsds_ppl.config import fit_sizes
from mrsds_ppl.config.arguments import config_for
from mrsds_ppl.config.choice import choose_start
from mrsds_ppl.config.cost import cost_of
from mrsds_ppl.config.fit_sizes import FitSizes, Products, sizes_of
from mrsds_ppl.config.recording import split_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models import filtering
from mrsds_ppl.start import laplace_em, staged
from mrsds_ppl.start.ascent import network_fit
from mrsds_ppl.start.refit import path_refit

MEASURED = json.loads((Path(__file__).parent / "benchmarks" / "cost_cases.json").read_text(encoding="utf-8"))
BOTH = pytest.mark.parametrize("counts", [True, False], ids=["counts", "continuous"])


def recording(counts, trials=12, bins=20, neurons=4):
    rng = np.random.default_rng(0)
    shape = trials, bins, 2 * neurons
    y = rng.poisson(1.0, size=shape).astype(float) if counts else rng.normal(size=shape)
    return Trials.from_arrays(y, region_sizes=[neurons, neurons])


def sizes(counts, num_states=2, latent_sizes=2, *, trials=12, bins=20, neurons=4, model=None, guide=None, **training):
    found = recording(counts, trials, bins, neurons)
    config = config_for(
        num_states,
        latent_sizes,
        model=model,
        guide=guide or "gaussian_markov",
        training=training,
        emission="poisson" if counts else "gaussian",
    )
    split = split_of(config, found)
    return sizes_of(choose_start(config, split.train).applied_to(config), split)


def cost(counts, **options):
    found = cost_of(sizes(counts, **options))
    return found.seconds, found.megabytes


@BOTH
@pytest.mark.parametrize(
    "more",
    [
        {"trials": 60},
        {"bins": 60},
        {"neurons": 200},
        {"num_states": 4},
        {"latent_sizes": 4},
        {"num_steps": 4000},
        {"model": {"dynamics": {"layers": [64, 64]}}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_larger_fit_costs_more(counts, more):
    (seconds, megabytes), (longer, larger) = cost(counts), cost(counts, **more)
    assert longer > seconds
    assert larger >= megabytes
    if "num_steps" not in more:
        assert larger > megabytes


def test_steps_cost_in_proportion():
    few, many, more = (cost_of(sizes(True, num_steps=steps)).stages["training"] for steps in (100, 1000, 1900))
    assert many - few == pytest.approx(more - many)


@pytest.mark.parametrize("kind", ["additive", "additive-shared", "additive-linear", "conditional"])
@pytest.mark.parametrize("pooled", [False, True])
def test_products_are_those_of_the_networks(kind, pooled):
    """A bin takes a multiplication for each weight; conditional messages are asked twice, and not on the diagonal."""
    model = {"dynamics": {"communication_type": kind, "single_region_latent": pooled, "layers": [6, 5]}}
    config = config_for(3, [2, 4], model=model, emission="gaussian")
    split = split_of(config, recording(False))
    dynamics = eqx.filter_eval_shape(lambda: make_model(config, split.train, 9).networks.dynamics)
    weights = {
        name: sum(leaf.size for leaf in getattr(dynamics, name).weights)
        for name in ("sent", "pairs", "local")
        if getattr(dynamics, name) is not None
    }
    if kind == "conditional":
        regions = len(dynamics.latent_sizes)
        weights["pairs"] *= 2 * (regions - 1) / regions
    assert sizes_of(config, split).products.messages == sum(weights.values())


@pytest.mark.parametrize("encoder", ["convolution", "transformer"])
def test_products_of_the_encoder_are_those_of_its_networks(encoder):
    config = config_for(2, 2, training=None, emission="gaussian")
    config = config.model_copy(update={"inference": replace(config.inference, encoder=encoder)})
    split = split_of(config, recording(False))
    guide = make_guide(config, make_model(config, split.train, 9))
    matrices = [leaf.size for leaf in jax.tree.leaves(guide.recognition) if leaf.ndim == 2]
    # The head has no entries above the diagonal of a factor, and what attention does beside its products is left out.
    assert sizes_of(config, split).products.encoder == pytest.approx(sum(matrices), rel=0.2)


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: case["name"])
def test_what_was_measured_is_met_within_a_factor_of_one_and_a_half(case):
    given = {**case["sizes"], "products": Products(*case["sizes"]["products"])}
    found = cost_of(FitSizes(**given))
    assert 2 / 3 < found.seconds * case["slowness"] / sum(case["stages"].values()) < 1.5
    assert 2 / 3 < found.megabytes / case["megabytes"] < 1.5


def test_check_says_it():
    config = config_for(2, 2, training={"num_steps": 500}, emission="poisson")
    [line] = [line for line in check(config, recording(True)).splitlines() if line.startswith("cost: ")]
    assert "of computing on a CPU for at most 500 steps" in line
    assert line.endswith("GB of memory")


def test_check_imports_no_fit_and_compiles_nothing(tmp_path):
    np.savez(tmp_path / "rec.npz", ys=np.asarray(recording(True).y), region_sizes=[4, 4])
    code = (
        f"import sys; from mrsds_ppl.cli import main; main(['check', {str(tmp_path / 'rec.npz')!r}])\n"
        "heavy = {'mrsds_ppl.fit', 'mrsds_ppl.analysis', 'mrsds_ppl.output.results', 'matplotlib', 'arviz', 'orbax'}\n"
        "print(sorted(heavy & set(sys.modules)), sys.modules['jax._src.xla_bridge'].backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] False"


def test_the_work_is_counted_by_the_numbers_of_the_stages_themselves():
    """The estimate is read before anything of a fit is imported, so it has numbers of its own."""
    assert laplace_em._ONE_STATE_STEPS == counted._ONE_STATE_STEPS
    assert laplace_em._ROUNDS == counted._ROUNDS
    assert laplace_em._ROUNDS * laplace_em._STEPS_A_ROUND == counted._STEPS
    assert laplace_em._NETWORK_ROUNDS == counted._NETWORK_ROUNDS
    assert laplace_em.LaplaceEM().num_refit_steps == counted._REFIT_STEPS
    assert path_refit._BATCH == counted._REFIT_TRIALS
    assert path_refit._TRIALS == counted._FACTOR_TRIALS
    assert len(path_refit.NOISE_FACTORS) == counted._FACTORS
    assert path_refit._KEPT == counted._KEPT_OF_FACTORS
    assert len(filtering._FACTORS) == counted._LOOSENED
    assert filtering._KEPT_OF_NEW == counted._KEPT_OF_NEW
    assert staged._REFIT_STEPS == counted._STATES_STEPS
    assert network_fit._STEPS == counted._FITTED_STEPS
    assert network_fit._ROWS == counted._FITTED_ROWS
    assert ascent._STEPS == counted._SCORED_ROWS
    assert inspect.signature(tangents).parameters["count"].default == fit_sizes._DIRECTIONS
    assert posterior._DRAWS_AT_ONCE == counted._AT_ONCE
    assert posterior._WEIGHTS_PER_DRAW == counted._WEIGHTS
