"""Edges: dynamics without a message against least squares, and what is lost against the exact evidence."""

from itertools import product

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_1samp

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.edges import Removed, Without, check_edges, evidence_lost, mean_messages, training_steps
from mrsds_ppl.analysis.edges.score_test import coefficients_of
from mrsds_ppl.analysis.weights import Change, Moved, WeightPosterior, weight_posterior
from mrsds_ppl.data import Trials
from mrsds_ppl.errors import DataError, RunError
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.dynamics import Dynamics, Rows
from mrsds_ppl.models.linearised import SumOfMessages, linearise_messages
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.statespace.linear_gaussian import linearise

LINEAR = DynamicsOptions(layers=(), activations=(None,))


def rows_of(dynamics: Dynamics, count: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, sum(dynamics.latent_sizes)))
    x[:, 1:] += 0.8 * x[:, :1]  # so that others can say what is removed
    weights = rng.dirichlet(np.ones(dynamics.num_states), size=count)
    return Rows(*(jnp.asarray(a) for a in (x, rng.normal(size=(count, dynamics.num_inputs)), weights)))


def removed(dynamics: Dynamics, *edges: tuple[int, int, int]) -> Removed:
    regions = len(dynamics.latent_sizes)
    gone = np.zeros((dynamics.num_states, regions, regions + dynamics.num_inputs), bool)
    for edge in edges:
        gone[edge] = True
    return Removed(jnp.asarray(gone[..., :regions]), jnp.asarray(gone[..., regions:]))


def unmoved(dynamics: Dynamics) -> Change:
    dynamics = dynamics.unshared()
    regions, width = len(dynamics.latent_sizes), max(dynamics.latent_sizes)
    means = jnp.zeros((dynamics.num_states, regions, regions + dynamics.num_inputs, width), dynamics.noise.scale.dtype)
    return Change(jax.tree.map(jnp.zeros_like, dynamics), means)


@pytest.mark.parametrize("kind", ["additive", "additive-shared", "conditional"])
def test_nothing_changes_where_nothing_is_removed(kind: str) -> None:
    options = DynamicsOptions(communication_type=kind, layers=(4,), activations=("tanh",))
    dynamics = by_hand.filled(lambda: Dynamics(2, (2, 1), 0, options, key=jax.random.key(0)))
    rows = Rows(*(a.astype(jnp.float32) for a in rows_of(dynamics, 20)))
    x, u = rows.x.reshape(4, 5, 3), rows.u.reshape(4, 5, 0)
    cut = Without(dynamics, unmoved(dynamics), removed(dynamics), jax.jit(mean_messages)(dynamics, rows))
    found, whole = jax.jit(lambda: (cut.means(x, u), dynamics.means(x, u)))()
    np.testing.assert_allclose(found, whole, atol=1e-6)


def linear_program(lengths: tuple[int, ...]) -> tuple[FittedProgram, Trials]:
    """Two regions of one latent, of which the second hears the first, and trials; the fit has noise for a message."""
    options = ModelOptions(ux=False, xz=False, dynamics=LINEAR)
    model = by_hand.filled_model([3, 3], [1, 1], 1, options=options)
    rng = np.random.default_rng(0)
    maps, loading = np.array([[0.8, 0.0], [0.5, 0.6]]), rng.normal(size=(6, 1))
    networks = by_hand.with_values(
        model.networks, (maps + np.array([[0, 0.03], [0, 0]]))[None], np.zeros((1, 2)), loading, np.zeros(6),
        noise=0.5, first_noise=1.0, emission_noise=0.3, first_means=np.zeros((1, 2)),
    )  # fmt: skip
    xs, ys = [], []
    for length in lengths:
        x = rng.normal(size=(length, 2))
        for t in range(1, length):
            x[t] = maps @ x[t - 1] + 0.5 * x[t]
        xs.append(x)
        ys.append(np.repeat(x, 3, axis=1) * loading[:, 0] + 0.3 * rng.normal(size=(length, 6)))
    params = {f"{name}$params": part for name, part in networks._asdict().items()}
    return FittedProgram(model, params), Trials.from_arrays(ys, region_sizes=[3, 3], x=xs)


def known_of(fitted: FittedProgram, trials: Trials) -> WeightPosterior:
    x = np.nan_to_num(trials.x)
    ones = np.ones((*x.shape[:2], 1), x.dtype)
    return weight_posterior(jax.random.key(0), fitted, trials, x, ones, steps_of(fitted, trials))


def steps_of(fitted: FittedProgram, trials: Trials) -> Rows:
    x = np.nan_to_num(trials.x)
    return training_steps(fitted.model, trials, x, np.ones((*x.shape[:2], 1), x.dtype))


@pytest.mark.slow
@pytest.mark.compiling
def test_what_is_lost_is_the_exact_evidence_and_an_absent_message_loses_nothing() -> None:
    with jax.enable_x64(True):
        fitted, trials = linear_program((20, 15, 18, 20, 16, 20, 12, 20, 17, 20))
        rows = steps_of(fitted, trials)
        p_values = np.array([[[np.nan, 0.3], [0.01, np.nan]], [[np.nan, 0.3], [0.04, np.nan]]])
        known = known_of(fitted, trials)
        found = evidence_lost(fitted, trials, rows, known, p_values)
        dynamics, whole = fitted.networks.dynamics, exact_evidence(fitted.networks, trials)
        larger = p_values.copy()
        for target, source in ((1, 0), (0, 1)):
            change = known.change(known.without(coefficients_of(known, (0, target, source))))
            gone, means = removed(dynamics, (0, target, source)), jax.jit(mean_messages)(dynamics, rows)
            cut = Without(dynamics, change, gone, means)
            # Linear in x, so that three points tell the map and the shift.
            points = np.concatenate([np.zeros((1, 2)), np.eye(2)])
            shift, *columns = np.asarray(cut.means(jnp.asarray(points), jnp.zeros((3, 0))))[0]
            maps = np.stack(columns, axis=1) - shift[:, None]
            lost = whole - exact_evidence(fitted.networks._replace(dynamics=affine(dynamics, maps, shift)), trials)
            one = found.isel(state=0, target=target, source=source)
            assert float(one["evidence"]) == pytest.approx(lost.mean(), rel=1e-4, abs=1e-6)
            assert float(one["error"]) == pytest.approx(lost.std(ddof=1) / np.sqrt(10), rel=1e-4, abs=1e-6)
            of_trials = ttest_1samp(lost, 0.0, alternative="greater").pvalue
            larger[:, target, source] = np.maximum(p_values[:, target, source], of_trials)
        alone = evidence_lost(fitted, trials.select([0]), rows, known, p_values)
        assert np.isnan(alone["error"]).all()
        assert not alone["present"].any()
    np.testing.assert_allclose(found["p_value"], larger, rtol=1e-4)
    p = found["p_value"].values[0]
    np.testing.assert_allclose(
        found["q_value"].values[0][[0, 1], [1, 0]], false_discovery_control(p[[0, 1], [1, 0]]), rtol=1e-12
    )
    assert found["present"].values.tolist() == 2 * [[[False, False], [True, False]]]
    # With one state, in every state is in that one.
    np.testing.assert_allclose(found["evidence"].values[1], found["evidence"].values[0], rtol=1e-10)


def exact_evidence(networks: Networks, trials: Trials) -> np.ndarray:
    pairs = zip(trials.y, trials.lengths, strict=True)
    return np.array([by_hand.path_posterior(networks, y[:n], [0] * n).log_marginal for y, n in pairs])


def affine(dynamics: Dynamics, maps: np.ndarray, shift: np.ndarray) -> Dynamics:
    """x -> maps x + shift of one-dimensional regions."""
    weights, biases = np.zeros((1, 2, 2, 1, 1)), np.zeros((1, 2, 2, 1))
    for r, s in product(range(2), repeat=2):
        weights[0, r, s] = maps[r, s] - (r == s)
        biases[0, r, s] = shift[r] * (r == s)
    return eqx.tree_at(
        lambda d: (d.pairs.weights[0], d.pairs.biases[0]), dynamics, (jnp.asarray(weights), jnp.asarray(biases))
    )


@pytest.mark.parametrize("kind", ["additive", "additive-shared", "additive-linear"])
def test_messages_linearised_one_by_one_are_their_sum_linearised(kind: str) -> None:
    """Regions of unequal sizes, messages that moved, one of them removed, inputs that depend on the target."""
    with jax.enable_x64(True):
        options = DynamicsOptions(
            communication_type=kind, layers=(4,), activations=("tanh",), input_type="conditional", input_layers=(3,)
        )
        dynamics = by_hand.filled(lambda: Dynamics(2, (2, 1, 3), 2, options, key=jax.random.key(0)))
        rows, rng = rows_of(dynamics, 20), np.random.default_rng(1)
        change = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape)), unmoved(dynamics))
        means = jax.jit(mean_messages)(dynamics, rows)
        cut = Without(dynamics, change, removed(dynamics, (0, 1, 0), (1, 2, 4)), means)
        x, u = jnp.asarray(rng.normal(size=(2, 4, 6))), jnp.asarray(rng.normal(size=(2, 4, 2)))
        assert isinstance(cut, SumOfMessages)
        found, whole = jax.jit(lambda: (linearise_messages(cut, x, u), linearise(cut.means, x, u)))()
    np.testing.assert_allclose(found.gain, whole.gain, atol=1e-12)
    np.testing.assert_allclose(found.offset, whole.offset, atol=1e-12)


def test_a_message_that_hears_its_target_too_is_not_linearised_by_its_source() -> None:
    options = DynamicsOptions(communication_type="conditional", layers=(4,), activations=("tanh",))
    dynamics = by_hand.filled(lambda: Dynamics(1, (1, 1), 0, options, key=jax.random.key(0)))
    assert not Moved(dynamics, unmoved(dynamics)).hears_source_alone


def test_a_region_alone_has_no_edges() -> None:
    model = by_hand.filled_model([3], [1], 1, options=ModelOptions(ux=False, xz=False, dynamics=LINEAR))
    trials = Trials.from_arrays([np.zeros((4, 3))] * 9, region_sizes=[3])
    with pytest.raises(RunError, match="one region without inputs gets no messages but its own"):
        check_edges(model, trials)


def test_few_trials_are_refused() -> None:
    fitted, trials = linear_program((5, 5, 5, 5))
    with pytest.raises(DataError, match="found 4 training trials, need at least 6"):
        check_edges(fitted.model, trials)
