"""The climb of the evidence: its gradient against a sum over every path of states, what it moves, and what it gains."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.config import ignored_keys, load_config
from mrsds_ppl.data.simulate import simulate_oscillators
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.inference.evidence_ascent import climb_evidence
from mrsds_ppl.inference.initialization import initialize
from mrsds_ppl.inference.laplace_em import smooth_trials
from mrsds_ppl.inference.path_refit import weigh
from mrsds_ppl.models import MRSDS, DynamicsOptions, ModelOptions


def _as_params(model):
    return {f"{name}$params": part for name, part in model.networks._asdict().items()}


@pytest.mark.slow
def test_the_gradient_of_the_evidence_is_that_of_the_sum_over_every_path_of_states():
    """Linear networks and Gaussian signals, where the linearised program is the program."""
    with jax.enable_x64(True):
        y = np.random.default_rng(0).normal(size=(4, 4))
        trials = Trials.from_arrays([y], region_sizes=[2, 2])
        options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
        model = MRSDS([2, 2], 1, 2, key=random.key(0), options=options)
        batch = jax.tree.map(jnp.asarray, trials.batch())
        params = _as_params(model)

        def weighed(dynamics):
            around = jnp.zeros((1, 4, 2))
            return weigh({**params, "dynamics$params": dynamics}, model, batch, around, num_kept=16).log_evidence[0]

        def summed(dynamics):
            networks = model.networks._replace(dynamics=dynamics)
            moves = networks.transitions.logits(jnp.zeros((1, 0)))[:, 0]
            start, moves = (jax.nn.log_softmax(part) for part in (networks.initial.state_logits, moves))

            def one(path):
                def log_joint(flat):
                    x = flat.reshape(4, 2)
                    total = networks.initial.noise.around(networks.initial.means[path[0]]).log_prob(x[0])
                    means = dynamics.means(x[:-1], jnp.zeros((3, 0)))[path[1:], jnp.arange(3)]
                    total = total + dynamics.noise.around(means).log_prob(x[1:]).sum()
                    return total + networks.emissions.law(x[None], batch.observed).log_prob(batch.y)[0]

                at = jnp.zeros(8)
                precision, slope = -jax.hessian(log_joint)(at), jax.grad(log_joint)(at)
                integral = log_joint(at) + 0.5 * slope @ jnp.linalg.solve(precision, slope)
                integral = integral - 0.5 * jnp.linalg.slogdet(precision / (2 * jnp.pi))[1]
                return start[path[0]] + moves[path[:-1], path[1:]].sum() + integral

            return jax.nn.logsumexp(jax.vmap(one)(jnp.asarray(list(product(range(2), repeat=4)))))

        found, expected = (jax.jit(jax.value_and_grad(f))(params["dynamics$params"]) for f in (weighed, summed))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
        np.testing.assert_allclose(found[1].pairs.weights[0], expected[1].pairs.weights[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found[1].noise.raw_diagonal, expected[1].noise.raw_diagonal, rtol=1e-6, atol=1e-9)
        assert np.abs(found[1].pairs.weights[0]).min() > 1e-4


@pytest.mark.slow
def test_the_climb_raises_the_evidence_by_networks_alone():
    trials = simulate_oscillators(0, num_trials=12, num_regions=2, num_states=2, min_bins=25, num_bins=30)
    options = ModelOptions(
        ux=False, xz=False, emission="poisson", final_activation="softplus",
        dynamics=DynamicsOptions(layers=(8,), activations=("tanh", None)),
    )  # fmt: skip
    model = MRSDS(trials.region_sizes, 2, 2, key=random.key(0), options=options, num_trials=12)
    params = initialize(_as_params(model), trials, model.latent_sizes, counts=True)
    batch = jax.device_put(trials.batch())
    paths, states = smooth_trials(params, model, batch)
    found, sparse = (
        climb_evidence(random.key(1), params, model, batch, paths.mean, states, num_steps=30, sparsity=sparsity)
        for sparsity in (0.0, 0.5)
    )
    assert found.evidence.shape == (30,)
    before, after = (
        weigh(some, model, batch, smooth_trials(some, model, batch)[0].mean).log_evidence
        for some in (params, found.params)
    )
    # Most trials gain, by half a nat and more on average.
    assert float((after - before).mean()) > 0.5
    assert (np.asarray(after) > np.asarray(before)).mean() > 0.7
    assert set(found.params) == set(params)
    for name in ("emissions$params", "initial$params"):
        jax.tree.map(np.testing.assert_array_equal, found.params[name], params[name])
    old, new, held = (some["dynamics$params"] for some in (params, found.params, sparse.params))
    np.testing.assert_array_equal(new.noise.raw_diagonal, old.noise.raw_diagonal)
    assert np.abs(new.pairs.weights[0] - old.pairs.weights[0]).max() > 1e-3
    assert np.abs(found.params["transitions$params"].bias - params["transitions$params"].bias).max() > 1e-3
    # A price on messages between regions leaves smaller ones.
    apart = ~np.eye(2, dtype=bool)
    size_new, size_held = (np.abs(np.asarray(part.pairs.weights[-1])[:, apart]).mean() for part in (new, held))
    assert size_held < size_new


def test_steps_on_the_evidence_are_named_where_there_is_no_start_by_smoothing(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("inference: {guide: gaussian_markov, encoder: none}\ntraining: {evidence_steps: 5}\n")
    assert "training.evidence_steps" not in ignored_keys(load_config(path))
    off = {"inference.encoder": "convolution", "training.switch_init_steps": 0, "model.weight_prior": {"scale": 1.0}}
    for key, value in off.items():
        assert "training.evidence_steps" in ignored_keys(load_config(path, {key: value}))
