"""Transitions with the latents summed out; the sums over every path themselves are in test_smoothing.py."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.special import expit, logit

from mrsds_ppl.backend.trials_at_once import in_parts
from mrsds_ppl.commands.fit import fit
from mrsds_ppl.config.loading import ignored_keys, load_config
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.fitted import load
from mrsds_ppl.models import MRSDS, DynamicsOptions, ModelOptions
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.filtering import count_transitions
from mrsds_ppl.models.linearised import linearised_with, shared_terms
from mrsds_ppl.statespace.gaussian_sum import expected_transitions
from mrsds_ppl.train import stages
from mrsds_ppl.train.settings import StartOptions
from mrsds_ppl.train.transition_fit import fit_transitions

_STAY = (0.9, 0.8)
_OFFSET = np.array([[0.5, -0.5], [-0.5, 0.5]])
_NOISE = 0.2
_TINY = (
    "data: {data_source: oscillators, simulation: {num_trials: 12, min_bins: 15, num_bins: 20, num_regions: 2, "
    "num_states: 2, neurons_per_region: 5}}\n"
    "model: {num_states: 2, latent_dims: 1, ux: false, xz: false, xtransition: {dynamics: {layers: [4], "
    "activations: [relu, null]}}, emissions: {dist: poisson, final_activation: softplus}}\n"
    "inference: {guide: gaussian_markov, encoder: convolution}\n"
    "training: {num_steps: 4, batch_size: 6, switch_init_steps: 0, save_steps: 4, log_steps: 4, "
    "transition_rounds: 3}\noutput: {draws: 4}\n"
)


def transition_matrix(params: dict) -> np.ndarray:
    """p(z_t = to | z_{t-1} = from), where nothing else enters it."""
    return np.asarray(jax.nn.softmax(params["transitions$params"].bias, axis=-1))


def _switching(num_trials: int, num_bins: int, pulled: float = 0.0) -> tuple[Trials, MRSDS, dict]:
    """Trials of a linear program whose states push its latents to either side, and that program with wrong transitions.

    The state is seen late: latents keep nine tenths of their value, and signals are noisy. The log odds of leaving a
    state rise by ``pulled`` for a unit of the first latent.
    """
    rng = np.random.default_rng(0)
    linear = DynamicsOptions(layers=(), activations=(None,))
    options = ModelOptions(ux=False, xz=pulled != 0, dynamics=linear)
    model = MRSDS([6, 6], 1, 2, key=random.key(0), options=options)
    z, x = np.zeros((num_trials, num_bins), int), np.zeros((num_trials, num_bins, 2))
    for t in range(1, num_bins):
        odds = logit(np.take(_STAY, z[:, t - 1])) - pulled * x[:, t - 1, 0]
        leave = rng.random(num_trials) > expit(odds)
        z[:, t] = np.where(leave, 1 - z[:, t - 1], z[:, t - 1])
        x[:, t] = 0.9 * x[:, t - 1] + 0.3 * _OFFSET[z[:, t]] + _NOISE * rng.normal(size=(num_trials, 2))
    networks = model.networks
    y = np.asarray(networks.emissions.activity(jnp.asarray(x))) + rng.normal(size=(num_trials, num_bins, 12))
    # Change of a region: -0.1 x + 0.3 offset, and no messages.
    itself, dynamics = np.eye(2)[None, :, :, None], networks.dynamics
    dynamics = eqx.tree_at(
        lambda d: (d.pairs.weights[0], d.pairs.biases[0], d.noise),
        dynamics,
        (
            jnp.asarray(np.broadcast_to(-0.1 * itself[..., None], (2, 2, 2, 1, 1)), dynamics.noise.scale.dtype),
            jnp.asarray(0.3 * itself * _OFFSET[:, :, None, None], dynamics.noise.scale.dtype),
            Covariance((2,), _NOISE, triangular=False, trainable=True),
        ),
    )
    networks = networks._replace(dynamics=dynamics)
    if pulled:
        weight = np.zeros(networks.transitions.weight.shape, np.float32)
        weight[[0, 1], [1, 0], 0] = pulled
        networks = networks._replace(transitions=eqx.tree_at(lambda t: t.weight, networks.transitions, weight))
    params = {f"{name}$params": part for name, part in networks._asdict().items()}
    trials = Trials.from_arrays(list(y), region_sizes=[6, 6], z=list(z), x=list(x))
    return trials, model, params


@pytest.mark.slow
@pytest.mark.compiling
def test_transitions_are_those_of_the_true_states():
    trials, model, params = _switching(200, 80)
    wrong = transition_matrix(params)
    paths = np.zeros_like(trials.x, dtype=np.float32)  # linear and Gaussian: any path will do
    fitted = fit_transitions(params, model, trials.batch(), paths, num_rounds=25)
    found, true = transition_matrix(fitted.params), _moved(trials)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)
    assert np.abs(wrong - true).max() > 0.1
    np.testing.assert_allclose(found, true, atol=0.025)
    # The same law in every bin: its mean is the matrix.
    np.testing.assert_allclose(fitted.before, wrong, rtol=1e-5)
    np.testing.assert_allclose(fitted.after, found, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.compiling
def test_offsets_are_the_true_ones_where_latents_move_the_odds():
    trials, model, params = _switching(200, 80, pulled=1.5)
    bias = params["transitions$params"].bias
    batch, true = trials.batch(), np.log([[_STAY[0], 1 - _STAY[0]], [1 - _STAY[1], _STAY[1]]])
    x = jnp.asarray(trials.x, jnp.float32)
    fitted = fit_transitions(params, model, batch, x, num_rounds=25)
    found = np.asarray(fitted.params["transitions$params"].bias)
    odds = [offsets[[0, 1], [0, 1]] - offsets[[0, 1], [1, 0]] for offsets in (bias, found, true)]
    assert np.abs(odds[0] - odds[2]).max() > 0.7
    np.testing.assert_allclose(odds[1], odds[2], atol=0.25)
    # How often states follow each other is what the law says; the matrix at x = 0 is not.
    np.testing.assert_allclose(fitted.after, _moved(trials), atol=0.025)
    evidence = [
        np.asarray(count_transitions(model.networks_from(some), model, in_parts(batch), x).log_evidence).sum()
        for some in (params, fit_transitions(params, model, batch, x, num_rounds=1).params, fitted.params)
    ]
    assert evidence[0] < evidence[1] < evidence[2]


def _moved(trials: Trials) -> np.ndarray:
    """How often each state follows each."""
    moved = np.zeros((2, 2))
    np.add.at(moved, (trials.z[:, :-1], trials.z[:, 1:]), 1)
    return moved / moved.sum(1, keepdims=True)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.compiling
def test_merging_loses_little():
    """Five bins, where histories of five states merge nothing: p(y) and counts against shorter ones."""
    with jax.enable_x64(True):
        trials, model, params = _switching(20, 5)
        batch = jax.tree.map(jnp.asarray, trials.batch())
        networks = model.networks_from(params)
        shared = shared_terms(networks)
        moves = jnp.broadcast_to(jnp.log(jnp.asarray([[0.9, 0.1], [0.2, 0.8]])), (20, 4, 2, 2))
        around = linearised_with(networks, batch, jnp.zeros((20, 5, 2)), jnp.zeros((20, 5, 0)), moves)
        exact, *merged = (
            jax.jit(lambda order=order: expected_transitions(shared, around, order=order))() for order in (5, 2, 1)
        )
        np.testing.assert_allclose(exact.transitions.sum((1, 2)), 4.0, rtol=1e-9)
        lost = [float(jnp.abs(some.log_evidence - exact.log_evidence).max()) for some in merged]
        assert 0 < lost[0] < lost[1] < 0.01, lost
        total = exact.transitions.sum(0)
        for some in merged:
            np.testing.assert_allclose(some.transitions.sum(0), total, rtol=0.03)


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.nightly
@pytest.mark.parametrize("restarts", [1, 2])
def test_a_run_keeps_the_transitions_it_ends_with(tmp_path, restarts):
    path = tmp_path / "some.yaml"
    path.write_text(_TINY)
    config, said = load_config(path, {"training.restarts": restarts}), []
    assert "training.start.transition_rounds" not in ignored_keys(config)
    fit(config, name="run", result_path=tmp_path, log=said.append)
    line = next(line for line in said if line.startswith("transitions: "))
    assert "probability of staying in a state" in line
    run = load(tmp_path / "run")
    found = transition_matrix(run.params)
    assert str(np.round(np.diag(found), 3)) in line
    # Resumed after its end, the run fits them no second time.
    said.clear()
    fit(config, name="run", result_path=tmp_path, resume=True, log=said.append)
    assert not any(line.startswith("transitions: ") for line in said)
    np.testing.assert_array_equal(transition_matrix(load(tmp_path / "run").params), found)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_weights_with_a_prior_stand_at_their_medians(tmp_path, monkeypatch):
    path, asked = tmp_path / "some.yaml", []

    def remembered(params, *args, **kwargs):
        asked.append(params)
        return fit_transitions(params, *args, **kwargs)

    monkeypatch.setattr(stages, "fit_transitions", remembered)
    path.write_text(_TINY)
    config = load_config(path, {"model.weight_prior": {"scale": 0.5}})
    fit(config, name="run", result_path=tmp_path, log=lambda line: None)
    run = load(tmp_path / "run")
    found, read = (run.model.networks_from(params).dynamics.pairs for params in (*asked, run.params))
    first = run.model.networks.dynamics.pairs
    for a, b, start in zip(found.weights, read.weights, first.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(np.asarray(a - start)).max() > 0


def test_rounds_are_of_several_states_and_by_default_of_fits_that_are_scored(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("model: {num_states: 2}\ntraining: {transition_rounds: 3}\n")
    assert "training.start.transition_rounds" not in ignored_keys(load_config(path))
    assert "training.start.transition_rounds" in ignored_keys(load_config(path, {"model.num_states": 1}))
    assert StartOptions().rounds_after(scored=True) == (1, 5)
    assert StartOptions().rounds_after(scored=False) == (0, 0)
    assert StartOptions(scoring_rounds=2, transition_rounds=0).rounds_after(scored=True) == (2, 0)
    assert StartOptions(transition_rounds=3).rounds_after(scored=False) == (0, 3)
