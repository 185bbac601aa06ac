"""The flow of a fitted model: vector fields, Jacobians and fixed points of the mean map x_t = f_k(x_{t-1}, u).

All are of one discrete state k at a time and without noise. A region's flow depends on the other regions through their
messages, so these are held at values that the user names, zero unless named; so are the inputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from scipy.optimize import root

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.mrsds import MRSDS

# Values at which regions are held, by index or, where names are given, by name.
Held = Mapping[int | str, Any]


class Plane(NamedTuple):
    """origin + c_1 directions[0] (+ c_2 directions[1]) in the latents of a region, coordinates c."""

    origin: Float[np.ndarray, " latent"]
    directions: Float[np.ndarray, "axis latent"]


class VectorField(NamedTuple):
    """Change f_k^r(x) - x of a region's latents, or of all, in latent units a bin, at points of a grid.

    ``coordinates`` and ``flow`` are those within the plane, ``points`` and ``change`` those in the region's latents;
    without a plane they are the same.
    """

    points: Float[np.ndarray, "point latent"]
    change: Float[np.ndarray, "point latent"]
    coordinates: Float[np.ndarray, "point axis"]
    flow: Float[np.ndarray, "point axis"]


class FixedPoint(NamedTuple):
    """f_k(x) = x, with the eigenvalues of the Jacobian there by falling size; stable if all are smaller than 1.

    ``residual`` is |f_k(x) - x|.
    """

    x: Float[np.ndarray, " latent"]
    eigenvalues: Complex[np.ndarray, " latent"]
    stable: bool
    residual: float


def visited_grid(
    values: Float[np.ndarray, "... axis"], count: int = 21, edge: float = 0.1
) -> list[Float[np.ndarray, " {count}"]]:
    """Evenly spaced coordinates over the middle 98 % of what was visited, widened by a fraction ``edge`` of it.

    Args:
        values: latents of one region, or coordinates within a plane; NaN is left out.
        count: grid lines of each axis.
        edge: fraction by which each end is widened.
    """
    rows = values.reshape(-1, values.shape[-1])
    low, high = np.quantile(rows[np.isfinite(rows).all(1)], [0.01, 0.99], axis=0)
    margin = edge * (high - low)
    return [np.linspace(a, b, count) for a, b in zip(low - margin, high + margin, strict=True)]


def vector_field(
    fitted: FittedProgram,
    region: int | str | None,
    *,
    state: int,
    grid: Sequence[Float[np.ndarray, "_"]],
    at: Held | None = None,
    u: Float[np.ndarray, " input"] | Sequence[float] | None = None,
    plane: Plane | None = None,
    region_names: Sequence[str] | None = None,
) -> VectorField:
    """Change of one region's latents in one bin of a state, on a grid, with the other regions held still.

    Args:
        fitted: program and parameters.
        region: index, or name where ``region_names`` are given; ``None`` for all regions together.
        state: discrete state k.
        grid: coordinates along each axis, see :func:`visited_grid`: one axis for a region of one latent, two for one
            of two; one or two of a plane. The points are their product, the last axis varying fastest.
        at: latents at which other regions are held; zero where not named.
        u: inputs (input,), zero unless given.
        plane: through the latents of a region that has more of them than the grid has axes.
        region_names: names of the regions.

    Raises:
        RunError: a region, state or width that does not exist.
    """
    model = fitted.model
    part = slice(0, model.num_latents) if region is None else _region(model, region, region_names)[1]
    size = part.stop - part.start
    if plane is None:
        plane = Plane(np.zeros(size), np.eye(size))
    if len(grid) not in (1, 2) or plane.directions.shape != (len(grid), size) or plane.origin.shape != (size,):
        raise RunError(
            f"grid: found {len(grid)} axes for a plane of directions {plane.directions.shape} through {size} latents. "
            "Give one or two axes, and for a region of more latents a plane of as many directions."
        )
    coordinates = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, len(grid))
    points = plane.origin + coordinates @ plane.directions
    x = np.tile(_held(model, at, region_names), (len(points), 1))
    x[:, part] = points
    check_state(model, state)
    change = np.asarray(mean_maps(fitted, jnp.asarray(x), inputs_of(model, u)))[state][:, part] - points
    flow = np.linalg.lstsq(plane.directions.T, change.T, rcond=None)[0].T
    return VectorField(points, change, coordinates, flow)


def jacobian(
    fitted: FittedProgram,
    x: Float[np.ndarray, "*point latent"],
    *,
    state: int,
    u: Float[np.ndarray, " input"] | Sequence[float] | None = None,
    region: int | str | None = None,
    region_names: Sequence[str] | None = None,
) -> Float[np.ndarray, "*point to from"]:
    """d f_k(x, u) / d x at one point or at many: entry [i, j] says how latent j moves latent i of the next bin.

    Args:
        fitted: program and parameters.
        x: latents of all regions.
        state: discrete state k.
        u: inputs (input,), zero unless given.
        region: only the block of this region's latents, d f_k^r / d x^r.
        region_names: names of the regions.

    Raises:
        RunError: a region, state or width that does not exist.
    """
    model = fitted.model
    check_state(model, state)
    if x.shape[-1] != model.num_latents:
        raise RunError(f"x: found {x.shape[-1]} latents, the model has {model.num_latents}.")
    rows = jnp.asarray(x.reshape(-1, x.shape[-1]))
    _, slopes = _maps_and_slopes(fitted, rows, inputs_of(model, u), state)
    found = np.asarray(slopes).reshape(*x.shape, x.shape[-1])
    if region is None:
        return found
    _, part = _region(model, region, region_names)
    return found[..., part, part]


def fixed_points(
    fitted: FittedProgram,
    *,
    state: int,
    starts: Float[np.ndarray, "start latent"],
    region: int | str | None = None,
    at: Held | None = None,
    u: Float[np.ndarray, " input"] | Sequence[float] | None = None,
    tolerance: float = 1e-6,
    apart: float = 1e-3,
    region_names: Sequence[str] | None = None,
) -> list[FixedPoint]:
    """Where the mean map of a state stands still, by Powell's hybrid method from many starts, in double precision.

    Args:
        fitted: program and parameters.
        state: discrete state k.
        starts: latents to start from, such as bins of posterior paths: of all regions, or of ``region``.
        region: only this region moves and the others are held; ``None`` for the map of all regions.
        at: latents at which other regions are held; zero where not named.
        u: inputs (input,), zero unless given.
        tolerance: largest |f(x) - x| of a fixed point, in latent units.
        apart: points closer than this, in latent units, are one.
        region_names: names of the regions.

    Returns:
        the points found, in the order of the starts that led there; a model may have others, or none.

    Raises:
        RunError: a region, state or width that does not exist.
    """
    model = fitted.model
    check_state(model, state)
    part = slice(0, model.num_latents) if region is None else _region(model, region, region_names)[1]
    held = _held(model, at, region_names)
    size = part.stop - part.start
    if starts.shape[1] != size:
        raise RunError(f"starts: found {starts.shape[1]} latents, need {size}.")
    found: list[FixedPoint] = []
    with jax.enable_x64(True):
        exact = jax.tree.map(_double, fitted)
        inputs = inputs_of(model, u)

        def change(moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x = held.copy()
            x[part] = moving
            value, slope = _maps_and_slopes(exact, jnp.asarray(x[None]), inputs, state)
            return np.asarray(value)[0, part] - moving, np.asarray(slope)[0, part, part] - np.eye(size)

        for start in starts.astype(float):
            point = root(change, start, jac=True, method="hybr", options={"xtol": 1e-10}).x
            value, slope = change(point)
            residual = float(np.linalg.norm(value))
            # Written so that NaN is left out too.
            new = all(np.linalg.norm(point - other.x) >= apart for other in found)
            if residual <= tolerance and new:
                values = np.linalg.eigvals(slope + np.eye(size)).astype(complex)
                values = values[np.argsort(-np.abs(values), kind="stable")]
                found.append(FixedPoint(point, values, bool(np.abs(values).max() < 1), residual))
    return found


@jax.jit
def mean_maps(fitted: FittedProgram, x: Array, u: Array) -> Float[Array, "state point latent"]:
    dynamics = fitted.networks.dynamics
    return dynamics.means(x, jnp.broadcast_to(u.astype(x.dtype), (x.shape[0], u.shape[0])))


@jax.jit
def _maps_and_slopes(fitted: FittedProgram, x: Array, u: Array, state: Array | int) -> tuple[Array, Array]:
    """f_k (point, latent) and its Jacobian (point, to, from)."""
    dynamics = fitted.networks.dynamics

    def mean(point: Array) -> tuple[Array, Array]:
        value = dynamics.means(point, u.astype(point.dtype))[state]
        return value, value

    slopes, values = jax.vmap(jax.jacfwd(mean, has_aux=True))(x)
    return values, slopes


def _double(leaf: Array | np.ndarray) -> Array | np.ndarray:
    floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jax.device_put(np.asarray(leaf, np.float64)) if floating else leaf


def check_state(model: MRSDS, state: int) -> None:
    if not 0 <= state < model.num_states:
        raise RunError(f"state: found {state}, the model has states 0 to {model.num_states - 1}.")


def _region(model: MRSDS, region: int | str, names: Sequence[str] | None) -> tuple[int, slice]:
    """Index and latents of a region."""
    known = list(names or [])
    index = known.index(region) if region in known else region
    count = len(model.latent_sizes)
    if isinstance(index, str) or not 0 <= index < count:
        allowed = f"{known} or " if known else ""
        raise RunError(f"region: found {region!r}; allowed: {allowed}0 to {count - 1}. Names need region_names.")
    first = sum(model.latent_sizes[:index])
    return index, slice(first, first + model.latent_sizes[index])


def _held(model: MRSDS, at: Held | None, names: Sequence[str] | None) -> Float[np.ndarray, " latent"]:
    x = np.zeros(model.num_latents)
    for region, value in (at or {}).items():
        _, part = _region(model, region, names)
        if np.shape(value) != (part.stop - part.start,):
            raise RunError(f"at[{region!r}]: found shape {np.shape(value)}, need ({part.stop - part.start},).")
        x[part] = value
    return x


def inputs_of(model: MRSDS, u: Float[np.ndarray, " input"] | Sequence[float] | None) -> Array:
    """(input,) as the dynamics take them."""
    given = np.zeros(model.num_inputs) if u is None else np.asarray(u, float)
    if given.shape != (model.num_inputs,):
        raise RunError(f"u: found shape {given.shape}, need ({model.num_inputs},).")
    return jnp.asarray(model.dynamics_inputs(given))
