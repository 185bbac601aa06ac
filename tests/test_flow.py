"""Vector fields, Jacobians and fixed points against affine maps, finite differences and the equations, in float64."""

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrsds_ppl.analysis.flow import (
    Plane,
    fixed_points,
    jacobian,
    vector_field,
    visited_grid,
)
from mrsds_ppl.analysis.recovery.alignment import LatentAlignment
from mrsds_ppl.analysis.recovery.flow_scores import change_in_true_latents, field_cosine
from mrsds_ppl.errors import RunError
from mrsds_ppl.models import DynamicsOptions, ModelOptions

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

NAMES = ["V1", "V2"]


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def params_of(model):
    return {f"{name}$params": network for name, network in model.networks._asdict().items()}


@pytest.fixture(scope="module")
def curved():
    """A model of 2 + 3 latents whose messages depend on both ends."""
    with jax.enable_x64(True):
        form = DynamicsOptions(
            layers=(4,), activations=("tanh", None), communication="conditional", input="conditional"
        )
        model = by_hand.filled_model([3, 2], [2, 3], 2, num_inputs=1, options=ModelOptions(dynamics=form))
        return params_of(model), model


def affine(maps, shifts, sizes=(2, 1)):
    """A model of affine maps x -> A_k x + b_k."""
    form = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([2] * len(sizes), list(sizes), len(maps), options=form)
    width, neurons = max(sizes), 2 * len(sizes)
    model.networks = by_hand.with_values(
        model.networks,
        np.asarray(maps),
        np.asarray(shifts),
        np.zeros((neurons, width)),
        np.zeros(neurons),
        noise=0.1,
        first_noise=1.0,
        emission_noise=1.0,
        first_means=np.zeros((len(maps), sum(sizes))),
    )
    return params_of(model), model


def plain_mean(model, k, x, u):
    dynamics = model.networks.dynamics
    return np.asarray(by_hand.mean(dynamics, k, jnp.asarray(x), jnp.asarray(u)))


def test_field_is_the_change_of_one_region_with_the_others_held(curved):
    params, model = curved
    lines = [np.linspace(-1, 1, 3), np.linspace(-2, 2, 4)]
    held, u = np.array([0.3, -0.2, 1.1]), np.array([0.7])
    found = vector_field(params, model, "V1", state=1, grid=lines, at={"V2": held}, u=u, region_names=NAMES)
    assert found.points.shape == (12, 2)
    np.testing.assert_array_equal(found.points[1], [-1.0, lines[1][1]])
    for point, change in zip(found.points, found.change, strict=True):
        expected = plain_mean(model, 1, np.concatenate([point, held]), u)[:2] - point
        np.testing.assert_allclose(change, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(found.coordinates, found.points)
    np.testing.assert_allclose(found.flow, found.change, atol=1e-13)
    silent = vector_field(params, model, 0, state=1, grid=lines)
    expected = plain_mean(model, 1, np.concatenate([silent.points[5], np.zeros(3)]), np.zeros(1))[:2] - silent.points[5]
    np.testing.assert_allclose(silent.change[5], expected, rtol=1e-11)


def test_field_of_all_regions_moves_them_together(curved):
    params, model = curved
    plane = Plane(np.array([0.1, -0.2, 0.3, 0.4, -0.5]), np.eye(5)[[0, 3]])
    lines = [np.linspace(-1, 1, 3), np.linspace(0, 2, 4)]
    found = vector_field(params, model, None, state=1, grid=lines, plane=plane)
    for point, change in zip(found.points, found.change, strict=True):
        np.testing.assert_allclose(change, plain_mean(model, 1, point, np.zeros(1)) - point, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.flow, found.change[:, [0, 3]], atol=1e-13)


def test_plane_cuts_through_a_region_of_more_latents(curved):
    params, model = curved
    plane = Plane(np.array([0.1, 0.2, 0.3]), np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))
    lines = [np.linspace(-1, 1, 3)] * 2
    found = vector_field(params, model, 1, state=0, grid=lines, plane=plane)
    np.testing.assert_allclose(found.points[2], plane.origin - plane.directions[0] + plane.directions[1])
    expected = plain_mean(model, 0, np.concatenate([np.zeros(2), found.points[2]]), np.zeros(1))[2:] - found.points[2]
    np.testing.assert_allclose(found.change[2], expected, rtol=1e-11)
    # What is left of the change is orthogonal to the plane.
    np.testing.assert_allclose((found.change - found.flow @ plane.directions) @ plane.directions.T, 0.0, atol=1e-12)
    line = vector_field(params, model, 1, state=0, grid=lines[:1], plane=Plane(plane.origin, plane.directions[:1]))
    assert line.flow.shape == (3, 1)
    with pytest.raises(RunError, match="grid: found 2 axes"):
        vector_field(params, model, 1, state=0, grid=lines)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"region": "V9", "region_names": NAMES}, r"region: found 'V9'; allowed: \['V1', 'V2'\] or 0 to 1"),
        ({"region": 2}, "region: found 2"),
        ({"state": -1}, "state: found -1"),
        ({"at": {1: np.zeros(2)}}, r"at\[1\]: found shape \(2,\), need \(3,\)"),
        ({"u": np.zeros(2)}, r"u: found shape \(2,\), need \(1,\)"),
    ],
)
def test_what_does_not_exist_is_named(curved, wrong, message):
    with pytest.raises(RunError, match=message):
        vector_field(*curved, **{"region": 0, "state": 0, "grid": [np.zeros(1), np.zeros(1)], **wrong})


def test_jacobian_equals_finite_differences(curved):
    params, model = curved
    rng = np.random.default_rng(0)
    x, u, step = rng.normal(size=(2, 5)), np.array([0.4]), 1e-6
    found = jacobian(params, model, x, state=1, u=u)
    assert found.shape == (2, 5, 5)
    for j in range(5):
        move = step * np.eye(5)[j]
        slope = (plain_mean(model, 1, x[0] + move, u) - plain_mean(model, 1, x[0] - move, u)) / (2 * step)
        np.testing.assert_allclose(found[0, :, j], slope, rtol=1e-6, atol=1e-8)
    block = jacobian(params, model, x[0], state=1, u=u, region=1)
    np.testing.assert_allclose(block, found[0, 2:, 2:], rtol=1e-12)


ROTATION = 0.9 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])


def test_fixed_point_of_an_affine_map_is_the_solution_of_its_equations():
    a = np.block([[ROTATION, np.array([[0.2], [0.1]])], [np.array([[0.3, 0.0]]), np.array([[0.5]])]])
    b = np.array([0.4, -0.3, 0.2])
    params, model = affine([a, 1.5 * np.eye(3)], [b, -b])
    starts = np.random.default_rng(0).normal(size=(5, 3))
    (found,) = fixed_points(params, model, state=0, starts=starts)
    np.testing.assert_allclose(found.x, np.linalg.solve(np.eye(3) - a, b), rtol=1e-8)
    np.testing.assert_allclose(np.sort_complex(found.eigenvalues), np.sort_complex(np.linalg.eigvals(a)), rtol=1e-8)
    assert found.stable
    (other,) = fixed_points(params, model, state=1, starts=starts)
    np.testing.assert_allclose(other.x, 2 * b, rtol=1e-8)
    assert not other.stable


def test_fixed_point_of_one_region_depends_on_where_the_others_are_held():
    coupling = np.array([[0.2], [0.1]])
    a = np.block([[ROTATION, coupling], [np.array([[0.3, 0.0]]), np.array([[2.0]])]])
    params, model = affine([a], [np.zeros(3)])
    starts = np.ones((2, 2))
    (found,) = fixed_points(params, model, state=0, starts=starts, region="V1", at={"V2": [1.5]}, region_names=NAMES)
    np.testing.assert_allclose(found.x, np.linalg.solve(np.eye(2) - ROTATION, 1.5 * coupling[:, 0]), rtol=1e-8)
    np.testing.assert_allclose(np.abs(found.eigenvalues), 0.9, rtol=1e-8)
    assert found.stable
    with pytest.raises(RunError, match="starts: found 2 latents, need 3"):
        fixed_points(params, model, state=0, starts=starts)


def bistable():
    """x -> x + a tanh(w x) - c x with three fixed points: 0 is unstable, the other two are stable and opposite."""
    form = DynamicsOptions(layers=(2,), activations=("tanh", None))
    model = by_hand.filled_model([2], [1], 1, options=ModelOptions(dynamics=form))
    pairs = model.networks.dynamics.pairs
    # The second unit is linear in the range of interest: tanh(x / 100).
    weights = [np.array([[2.0, 0.01]]), np.array([[0.5], [-60.0]])]
    filled = [jnp.asarray(w).reshape(old.shape) for w, old in zip(weights, pairs.weights, strict=True)]
    zero = [jnp.zeros_like(b) for b in pairs.biases]
    dynamics = eqx.tree_at(lambda d: (d.pairs.weights, d.pairs.biases), model.networks.dynamics, (filled, zero))
    model.networks = model.networks._replace(dynamics=dynamics)
    return params_of(model), model


def test_every_fixed_point_is_found_once_with_its_stability():
    params, model = bistable()
    starts = np.linspace(-2, 2, 15)[:, None]
    found = sorted(fixed_points(params, model, state=0, starts=starts), key=lambda point: point.x[0])
    assert [point.stable for point in found] == [True, False, True]
    np.testing.assert_allclose(found[1].x, 0.0, atol=1e-7)
    np.testing.assert_allclose(found[0].x, -found[2].x, rtol=1e-6)
    for point in found:
        x = point.x[0]
        np.testing.assert_allclose(0.5 * np.tanh(2 * x), 60 * np.tanh(0.01 * x), atol=1e-8)
        slope = 1 + np.cosh(2 * x) ** -2.0 - 0.6 * np.cosh(0.01 * x) ** -2.0
        np.testing.assert_allclose(point.eigenvalues, [slope], rtol=1e-7)
        assert point.residual < 1e-6


def test_fixed_points_of_parameters_in_single_precision_are_as_exact():
    params, model = bistable()
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    with jax.enable_x64(False):
        found = fixed_points(single, model, state=0, starts=np.full((1, 1), 0.8), tolerance=1e-10)
    assert len(found) == 1
    assert not fixed_points(*affine([np.eye(1)], [np.ones(1)], sizes=(1,)), state=0, starts=np.zeros((3, 1)))


def test_change_is_told_in_the_true_latents():
    """x_true = x A + c of each region turns x -> M x + b into a map of x_true that is worked out here."""
    rng = np.random.default_rng(0)
    m, b = 0.5 * rng.normal(size=(3, 3)), rng.normal(size=3)
    params, model = affine([m], [b])
    blocks, offsets = [rng.normal(size=(2, 2)), rng.normal(size=(1, 1))], [rng.normal(size=2), rng.normal(size=1)]
    whole, shift = np.block([[blocks[0], np.zeros((2, 1))], [np.zeros((1, 2)), blocks[1]]]), np.concatenate(offsets)
    x = rng.normal(size=(6, 3))
    expected = (x @ m.T + b - x) @ whole
    nothing = np.zeros((1, 1, 3))
    alignment = LatentAlignment(nothing, np.ones(3), blocks, offsets)
    found = change_in_true_latents(params, model, alignment, x @ whole + shift, state=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_field_cosine_is_one_for_the_same_direction_and_pools_by_speed():
    rng = np.random.default_rng(0)
    field = rng.normal(size=(50, 2))
    assert field_cosine(field, 3.0 * field) == pytest.approx((1.0, 1.0))
    assert field_cosine(field, -field) == pytest.approx((-1.0, -1.0))
    # One slow point that goes the wrong way counts little where speeds are pooled.
    slow = np.concatenate([field, [[1e-3, 0.0]]]), np.concatenate([field, [[-1e-3, 0.0]]])
    found = field_cosine(*slow)
    assert found.pooled > 0.9999
    np.testing.assert_allclose(found.mean, 49 / 51)
    missing = np.concatenate([field, [[np.nan, 0.0]]])
    assert field_cosine(missing, np.ones_like(missing)) == field_cosine(field, np.ones_like(field))
    assert np.isnan(field_cosine(np.zeros((2, 2)), field[:2])).all()


def test_grid_covers_what_was_visited():
    values = np.random.default_rng(0).uniform(-1, 3, size=(4, 500, 2))
    values[0, :10] = np.nan
    lines = visited_grid(values, count=5)
    assert [len(line) for line in lines] == [5, 5]
    np.testing.assert_allclose(lines[0][[0, -1]], [-1.35, 3.35], atol=0.1)
