"""States and latents that are read off a fit, against the sum over every path of states of a linear program."""

from itertools import pairwise, product
from typing import NamedTuple

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from scipy.special import log_softmax, logsumexp

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.analysis.posterior_paths import posterior_paths, transition_draws
from mrsds_ppl.data import Trials
from mrsds_ppl.models import DynamicsOptions, ModelOptions

LENGTHS, DRAWS = (6, 4), 400


class Elsewhere:
    """A guide whose medians are far from the signals, or not finite: where a linear program begins does not matter."""

    def __init__(self, place: float) -> None:
        self.place = place

    def __call__(self, batch):
        with numpyro.plate("trials", len(batch.lengths)):
            return {"x": numpyro.sample("x", dist.Normal(jnp.ones((*batch.y.shape[:2], 2)), 1.0).to_event(2))}

    def median(self, params, batch):
        return {"x": jnp.full((*batch.y.shape[:2], 2), self.place)}

    def sample_posterior(self, key, params, batch, sample_shape=()):
        return {"x": 1.0 + 0.1 * random.normal(key, (*sample_shape, *batch.y.shape[:2], 2))}


class Case(NamedTuple):
    model: object
    params: dict
    trials: Trials
    networks: object


def make_case() -> Case:
    """Two regions of one latent that turn slowly or fast, seen by three noisy neurons each."""
    linear = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([3, 3], [1, 1], 2, options=linear)
    rng = np.random.default_rng(1)
    turns = np.stack([[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in (0.2, 1.0)])
    networks = by_hand.with_values(
        model.networks, turns, np.array([[0.2, 0.0], [0.0, -0.2]]), rng.normal(size=(6, 1)), np.zeros(6),
        noise=0.4, first_noise=0.8, emission_noise=0.9, first_means=np.array([[1.0, 0.0], [0.5, 1.0]]),
    )  # fmt: skip
    networks = eqx.tree_at(
        lambda n: (n.transitions.bias, n.initial.state_logits),
        networks,
        (jnp.log(jnp.array([[0.8, 0.2], [0.3, 0.7]])), jnp.array([0.3, -0.1])),
    )
    params = {f"{name}$params": part for name, part in networks._asdict().items()}
    trials = Trials.from_arrays([rng.normal(size=(n, 6)) for n in LENGTHS], region_sizes=[3, 3])
    return Case(model, params, trials, networks)


class Exact(NamedTuple):
    states: np.ndarray  # (bin, state)
    mean: np.ndarray  # (bin, latent)
    variance: np.ndarray  # (bin, latent)


def laws_of_paths(case: Case, trial: int) -> tuple[list[tuple[int, ...]], list, np.ndarray]:
    """Every path of states, the posterior of x under each, and p(z | y)."""
    length, networks = LENGTHS[trial], case.networks
    moves, first = np.asarray(networks.transitions.bias), log_softmax(np.asarray(networks.initial.state_logits))
    paths = list(product(range(2), repeat=length))
    laws = [by_hand.path_posterior(networks, case.trials.y[trial, :length], path) for path in paths]
    prior = [first[p[0]] + sum(moves[a, b] for a, b in pairwise(p)) for p in paths]
    scores = np.array([score + law.log_marginal for score, law in zip(prior, laws, strict=True)])
    return paths, laws, np.exp(scores - logsumexp(scores))


def steps_of_paths(case: Case, trial: int) -> list[tuple[float, np.ndarray]]:
    """p(z | y) of every path of states, and how many steps it has from each state to each."""
    paths, _, share = laws_of_paths(case, trial)
    counts = np.zeros((len(paths), 2, 2))
    for count, path in zip(counts, paths, strict=True):
        np.add.at(count, (path[:-1], path[1:]), 1)
    return list(zip(share, counts, strict=True))


def exact(case: Case, trial: int) -> Exact:
    """Moments of p(z | y) and p(x | y), by the posterior under each path of states."""
    paths, laws, share = laws_of_paths(case, trial)
    mean = np.einsum("p,pti->ti", share, np.stack([law.mean for law in laws]))
    size = mean.size
    spread = [np.diag(np.linalg.inv(law.precision.reshape(size, size))).reshape(mean.shape) for law in laws]
    square = np.stack([s + law.mean**2 for s, law in zip(spread, laws, strict=True)])
    states = np.stack([(share[:, None] * (np.array(paths) == k)).sum(0) for k in range(2)], axis=1)
    return Exact(states, mean, np.einsum("p,pti->ti", share, square) - mean**2)


@pytest.mark.slow
@pytest.mark.compiling
def test_posterior_of_a_linear_program_is_the_mixture_over_every_path_of_states() -> None:
    with jax.enable_x64(True):
        case = make_case()
        fitted = FittedProgram(case.model, case.params, Elsewhere(5.0))
        found = PosteriorSampler(fitted).infer(random.key(0), case.trials, draws=DRAWS, predictive=False)
        drawn = posterior_paths(random.key(1), fitted, case.trials, draws=DRAWS)
    assert not found.given_draws.any()
    for trial, length in enumerate(LENGTHS):
        truth = exact(case, trial)
        # A hundred draws of the states, four hundred of the latents.
        assert np.abs(found.z_prob[trial, :length] - truth.states).max() < 0.08
        spread = np.sqrt(truth.variance)
        assert (np.abs(found.x_mean[trial, :length] - truth.mean) < 5 * spread / np.sqrt(DRAWS)).all()
        for x, z in ((found.x_draws, found.z_prob_draws), drawn):
            x, z = x[:, trial, :length], z[:, trial, :length]
            assert (np.abs(x.mean(0) - truth.mean) < 5 * spread / np.sqrt(DRAWS)).all()
            np.testing.assert_allclose(x.std(0), spread, rtol=0.2)
            # Given each draw states are nearly known; on average they are what the signals say.
            assert np.abs(z.mean(0) - truth.states).max() < 5 * 0.5 / np.sqrt(DRAWS)


@pytest.mark.slow
@pytest.mark.compiling
def test_laws_of_transitions_are_those_of_states_given_the_signals() -> None:
    """The mean over all pairs of paths of both trials, and the spread of their Dirichlet laws."""
    with jax.enable_x64(True):
        case = make_case()
        fitted = FittedProgram(case.model, case.params, Elsewhere(5.0))
        found = transition_draws(random.key(2), fitted, case.trials.batch(), DRAWS)
        alone = transition_draws(random.key(2), fitted, case.trials.select([1]).batch(), DRAWS)
    mean, square = np.zeros((2, 2)), np.zeros((2, 2))
    for (share, steps), (other, more) in product(*(steps_of_paths(case, trial) for trial in (0, 1))):
        mass = 1.0 + steps + more
        total = mass.sum(1, keepdims=True)
        mean += share * other * mass / total
        square += share * other * mass * (mass + 1) / (total * (total + 1))
    np.testing.assert_allclose(found.sum(-1), 1.0)
    spread = np.sqrt(square - mean**2)
    assert (np.abs(found.mean(0) - mean) < 5 * spread / np.sqrt(DRAWS)).all()
    np.testing.assert_allclose(found.std(0), spread, rtol=0.2)
    # Fewer steps say less.
    assert (alone.std(0) > 1.1 * found.std(0)).all()


@pytest.mark.slow
@pytest.mark.compiling
def test_a_path_that_is_not_finite_leaves_its_trial_to_the_guide() -> None:
    case = make_case()
    fitted = FittedProgram(case.model, jax.tree.map(jnp.float32, case.params), Elsewhere(np.nan))
    found = PosteriorSampler(fitted).infer(random.key(0), case.trials, draws=20, predictive=False)
    assert found.given_draws.all()
    np.testing.assert_allclose(found.z_prob.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.x_draws, 1.0, atol=1.0)
