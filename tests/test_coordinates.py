"""Coordinates of latents that follow a given program: density by hand, and turned latents find their way back."""

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.start.coordinates import Alignment, Coordinates
from mrsds_ppl.start.linear_program import in_coordinates

TRIALS, BINS, SIZES = 60, 30, (2, 1)
MAPS = np.array([[0.8, -0.5, 0.2], [0.3, 0.6, 0.0], [0.0, 0.4, 0.7]])
BIAS, NOISE, FIRST = np.array([0.3, -0.1, 0.2]), 0.2, 0.5


@pytest.fixture(scope="module")
def linear():
    """A linear program of one state without a symmetry, its trials, and paths that follow it."""
    options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([4, 2], list(SIZES), 1, options=options)
    rng = np.random.default_rng(0)
    networks = by_hand.with_values(
        model.networks, MAPS[None], BIAS[None], rng.normal(size=(6, 2)), rng.normal(size=6),
        noise=NOISE, first_noise=FIRST, emission_noise=0.3, first_means=np.zeros((1, 3)),
    )  # fmt: skip
    x = [FIRST * rng.normal(size=(TRIALS, 3))]
    for _ in range(BINS - 1):
        x.append(x[-1] @ MAPS.T + BIAS + NOISE * rng.normal(size=(TRIALS, 3)))
    lengths = [BINS] * (TRIALS - 1) + [BINS - 7]
    return (
        model,
        networks,
        jax.device_put(by_hand.make_batch(lengths, BINS, 6)),
        jnp.asarray(np.stack(x, 1), jnp.float32),
    )


def alignment(linear, there=(True, True)):
    model, networks, batch, _ = linear
    return Alignment(model, networks, batch, np.array(there))


def test_it_is_the_density_of_the_moved_path_in_the_coordinates_of_the_given_one(linear):
    matrix, offset = np.array([[1.1, 0.2, 0.0], [-0.3, 0.8, 0.0], [0.0, 0.0, -1.4]]), np.array([0.1, 0.2, -0.3])
    found = alignment(linear).value(linear[3], Coordinates(matrix, offset))
    moved, lengths = np.asarray(linear[3]) @ matrix.T + offset, np.asarray(linear[2].lengths)
    total = stats.norm.logpdf(moved[:, 0], scale=FIRST).sum()
    for path, length in zip(moved, lengths, strict=True):
        total += stats.norm.logpdf(path[1:length], path[: length - 1] @ MAPS.T + BIAS, NOISE).sum()
    expected = total / lengths.sum() + np.log(abs(np.linalg.det(matrix)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_turned_latents_find_their_way_back(linear):
    rng = np.random.default_rng(1)
    turned, shift = np.zeros((3, 3)), rng.normal(size=3)
    turned[:2, :2], turned[2, 2] = rng.normal(size=(2, 2)), -0.6
    one = alignment(linear)
    x = jnp.asarray((np.asarray(linear[3]) - shift) @ np.linalg.inv(turned).T, jnp.float32)
    mirrored = one.begun(x, Coordinates.unmoved(3))  # the sign of the second region is another
    found = max(mirrored, key=lambda to: one.value(x, to))
    truth = one.value(linear[3], Coordinates.unmoved(3)) + np.log(abs(np.linalg.det(turned)))
    assert one.value(x, found) > truth - 1e-3  # at the maximum, which is near the truth
    np.testing.assert_allclose(found.matrix, turned, atol=0.1)
    np.testing.assert_allclose(found.offset, shift, atol=0.1)


def test_a_region_without_neurons_stays_as_it_is(linear):
    x = linear[3] * jnp.array([1.0, 1.0, -0.5])
    found = alignment(linear, (True, False)).ascend(x, Coordinates.unmoved(3))
    assert found.matrix[2].tolist() == [0.0, 0.0, 1.0]
    assert found.offset[2] == 0.0
    assert found.matrix[0, 0] != 1.0


def test_emissions_in_other_coordinates_say_the_same(linear):
    _, networks, _, x = linear
    matrix, offset = np.array([[1.1, 0.2, 0.0], [-0.3, 0.8, 0.0], [0.0, 0.0, -1.4]]), np.array([0.1, 0.2, -0.3])
    there = in_coordinates(networks.emissions, jnp.asarray(matrix), jnp.asarray(offset))
    np.testing.assert_allclose(
        there.activity(x @ jnp.asarray(matrix.T) + jnp.asarray(offset)), networks.emissions.activity(x), atol=1e-4
    )
