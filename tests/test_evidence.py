"""Evidence of held-out trials against the exact marginal, and the rule and command that choose a program by it."""

from pathlib import Path

import by_hand
import jax
import numpy as np
import pytest
import yaml

from mrsds_ppl import cli
from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.evidence import smallest_adequate, trial_evidence
from mrsds_ppl.data import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models import DynamicsOptions, ModelOptions

LENGTHS = (12, 7, 9)


@pytest.mark.slow
@pytest.mark.compiling
def test_evidence_of_a_linear_gaussian_program_is_the_exact_marginal() -> None:
    with jax.enable_x64(True):
        linear = ModelOptions(xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
        model = by_hand.filled_model([4, 3], [2, 2], 1, options=linear)
        rng = np.random.default_rng(0)
        networks = by_hand.with_values(
            model.networks, 0.9 * np.linalg.qr(rng.normal(size=(4, 4)))[0][None], 0.1 * np.ones((1, 4)),
            rng.normal(size=(7, 2)), 0.2 * np.ones(7),
            noise=0.3, first_noise=1.0, emission_noise=0.5, first_means=np.ones((1, 4)),
        )  # fmt: skip
        params = {f"{name}$params": part for name, part in networks._asdict().items()}
        trials = Trials.from_arrays([rng.normal(size=(n, 7)) for n in LENGTHS], region_sizes=[4, 3])
        found = trial_evidence(FittedProgram(model, params | {"auto_path_loc": np.zeros(3)}), trials)
        exact = [
            by_hand.path_posterior(networks, y[:n], [0] * n).log_marginal
            for y, n in zip(trials.y.astype(float), LENGTHS, strict=True)
        ]
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_the_smallest_program_within_two_standard_errors_is_chosen() -> None:
    rng = np.random.default_rng(0)
    hard = 100.0 * rng.normal(size=50)
    evidence = {
        "k2": hard - 5.0 + rng.normal(size=50),
        "k3": hard + 0.05 * rng.normal(size=50),
        "k4": hard + 0.01 + 0.05 * rng.normal(size=50),
    }
    found = smallest_adequate(evidence)
    assert (found.best, found.chosen) == ("k4", "k3")
    apart = evidence["k2"] - evidence["k4"]
    assert found.difference["k2"] == pytest.approx(apart.mean())
    assert found.error["k2"] == pytest.approx(apart.std(ddof=1) / np.sqrt(50))
    assert smallest_adequate(evidence, errors=0.0).chosen == "k4"
    assert smallest_adequate({"only": hard}).chosen == "only"


def test_programs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(RunError, match="found no programs"):
        smallest_adequate({})
    with pytest.raises(RunError, match=r"found \{'a': 3, 'b': 4\}, need at least one, all on the same trials"):
        smallest_adequate({"a": np.zeros(3), "b": np.zeros(4)})


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_command_lists_runs_by_size_and_refuses_other_trials(tmp_path: Path, capsys) -> None:
    config = {
        "data": {"data_source": "lotka-volterra", "simulation": {"num_trials": 12, "num_bins": 20}},
        "model": {"xtransition": {"dynamics": {"layers": [4], "activations": ["relu"]}}},
        "inference": {"embedding": {"layers": [3], "activations": [None]}, "convolution_params": {"channels": 4}},
        "training": {"num_steps": 8, "log_steps": 8, "save_steps": 8, "batch_size": 5, "switch_init_steps": 0},
        "output": {"draws": 4},
    }
    config["training"]["test_perc"] = 0.3
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    fit = ["fit", str(tmp_path / "small.yaml"), "--result-path", str(tmp_path)]
    for name, more in (("two", []), ("one", ["-k", "1"]), ("other", ["--data-seed", "1"])):
        assert cli.main([*fit, "--name", name, *more]) == 0
    one, two, other = (str(tmp_path / name) for name in ("one", "two", "other"))
    capsys.readouterr()
    assert cli.main(["compare", two, one]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 runs, 4 test trials")
    assert [line.split()[0] for line in said[2:4]] == [one, two]
    assert said[4].rpartition(": ")[2] in (one, two)
    assert cli.main(["compare", one, other]) == 2
    assert "its test trials are not those of" in capsys.readouterr().err
    assert cli.main(["compare", one]) == 2
    assert "give at least two different ones" in capsys.readouterr().err
