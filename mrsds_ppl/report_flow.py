"""Messages and flow of a fitted run, for its report."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import root

from mrsds_ppl.fitted import FittedRun
from mrsds_ppl.output.report_findings import Field

_GRID = {1: 161, 2: 17}
_STARTS = 36
_PATHS = 12


def norms_of_draws(run: FittedRun, draws: np.ndarray, u: np.ndarray, z_prob: np.ndarray) -> np.ndarray:
    """(draw, bin, target, source + input): norms of the messages averaged over the state posterior of one trial.

    The message of bin t goes from t - 1 to t; the first bin, which has none, is NaN.

    Args:
        draws: (draw, bin, latent).
        u: (bin, input).
        z_prob: (bin, state).
    """
    count, bins = draws.shape[:2]
    rows = draws[:, :-1].reshape(count * (bins - 1), -1)
    inputs = np.tile(u[1:], (count, 1))
    every = _every_message(run, rows, inputs)
    weight = np.tile(z_prob[1:], (count, 1))
    mean = np.einsum("nk,krsnd->nrsd", weight, every)
    norms = np.linalg.norm(mean, axis=-1).reshape(count, bins - 1, *mean.shape[1:3])
    return np.concatenate([np.full_like(norms[:, :1], np.nan), norms], axis=1)


def communication_of(run: FittedRun, x: np.ndarray, z_prob: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(state, target, source + input): mean norm of the messages in each state, weighted by its probability.

    Args:
        x: (trial, bin, latent).
        z_prob: (trial, bin, state).
        valid: (trial, bin).
    """
    kept = valid[:, 1:]
    rows, inputs, weight = x[:, :-1][kept], run.split.test.u[:, 1:][kept], z_prob[:, 1:][kept]
    norms = np.linalg.norm(_every_message(run, rows, inputs), axis=-1)
    total = np.maximum(weight.sum(0), 1e-12)[:, None, None]
    return np.einsum("nk,krsn->krs", weight, norms) / total


def flow_fields(run: FittedRun, x: np.ndarray, z_prob: np.ndarray, regions: list[str]) -> list[Field]:
    """Flow of every region, or of the whole plane where all regions together have two latents.

    A region of more than two latents is drawn in the plane of its two principal components.
    """
    filled = x.reshape(-1, x.shape[-1])
    filled = filled[np.isfinite(filled).all(1)].astype(np.float64)
    sizes = run.model.latent_sizes
    state = z_prob.argmax(-1)[..., None]
    paths = [np.where(state == k, x, np.nan)[:_PATHS] for k in range(run.model.num_states)]
    if sum(sizes) == 2 and len(sizes) == 2:
        names = [f"{name} latent (a.u.)" for name in regions]
        return [_field(run, paths, filled, " and ".join(regions), names, np.eye(2), True)]
    fields, first = [], 0
    for name, size in zip(regions, sizes, strict=True):
        block = np.zeros((sum(sizes), min(size, 2)))
        if size <= 2:
            block[first : first + size] = np.eye(size)
            names = [f"{name} latent{f' {i + 1}' if size > 1 else ''} (a.u.)" for i in range(size)]
        else:
            centred = filled[:, first : first + size] - filled[:, first : first + size].mean(0)
            block[first : first + size] = np.linalg.svd(centred, full_matrices=False)[2][:2].T
            names = [f"{name} component {i + 1} (a.u.)" for i in range(2)]
        fields.append(_field(run, paths, filled, name, names, block, size <= 2))
        first += size
    return fields


def _field(
    run: FittedRun, paths: list[Any], visited: np.ndarray, region: str, names: list[str], axes: np.ndarray, whole: bool
) -> Field:
    """Flow along orthonormal ``axes`` (latent, coordinate) through the mean of what was visited.

    Unless the axes span the ``whole`` of a region, a place that stands still along them moves across them, and no fixed
    points are sought.
    """
    centre = visited.mean(0)
    # Coordinates keep the origin of the latents, so that ticks can be compared with other figures.
    seen = visited @ axes
    low, high = np.quantile(seen, [0.01, 0.99], axis=0)
    edge = 0.1 * (high - low)
    lines = [np.linspace(a, b, _GRID[axes.shape[1]]) for a, b in zip(low - edge, high + edge, strict=True)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, axes.shape[1])
    rest = centre - axes @ (axes.T @ centre)
    flow = partial(_change, run, rest, axes)
    changes = np.asarray(jax.vmap(flow)(jnp.asarray(grid, jnp.float32))).transpose(1, 0, 2)
    none = np.zeros((0, axes.shape[1])), np.zeros(0, bool)
    found = [_fixed_points(flow, k, grid, changes[k]) if whole else none for k in range(run.model.num_states)]
    return Field(
        region,
        names,
        grid,
        np.asarray(changes, np.float64),
        [[path @ axes for path in some] for some in paths],
        [points for points, _ in found],
        [stable for _, stable in found],
    )


def _change(run: FittedRun, rest: np.ndarray, axes: np.ndarray, at: Array) -> Array:
    """(state, coordinate): f_k(x) - x along the axes, without inputs."""
    dynamics = run.model.networks_from(run.params).dynamics
    x = jnp.asarray(rest, at.dtype) + jnp.asarray(axes, at.dtype) @ at
    silent = jnp.zeros((1, run.model.num_inputs if run.model.options.ux else 0), at.dtype)
    return (dynamics.means(x[None], silent)[:, 0] - x) @ jnp.asarray(axes, at.dtype)


def _fixed_points(flow: Any, state: int, grid: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the flow of a state stands still within the grid, from its slowest points on, and which of them attract."""
    value = jax.jit(lambda at: flow(at)[state])
    slope = jax.jit(jax.jacfwd(lambda at: flow(at)[state]))
    low, high = grid.min(0), grid.max(0)
    apart = 0.02 * np.linalg.norm(high - low)
    found: list[np.ndarray] = []
    every = np.argsort(np.linalg.norm(change, axis=1))
    starts = np.concatenate([every[: _STARTS // 2], every[:: max(len(every) // (_STARTS // 2), 1)]])
    for start in grid[starts]:
        result = root(
            lambda at: np.asarray(value(at.astype(np.float32)), np.float64),
            start,
            jac=lambda at: np.asarray(slope(at.astype(np.float32)), np.float64),
        )
        inside = np.all((result.x >= low) & (result.x <= high))
        exact = np.linalg.norm(result.fun) < 1e-4 * np.linalg.norm(high - low)
        if inside and exact and all(np.linalg.norm(result.x - other) > apart for other in found):
            found.append(result.x)
    points = np.array(found).reshape(-1, grid.shape[1])
    unit = np.eye(grid.shape[1])
    sizes = [np.abs(np.linalg.eigvals(unit + np.asarray(slope(p.astype(np.float32))))).max() for p in points]
    return points, np.array(sizes) < 1


def _every_message(run: FittedRun, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(state, target, source + input, row, latent): changes that each message makes; the local one is m(x) - x."""
    model = run.model
    dynamics = model.networks_from(run.params).dynamics

    def messages(x: Array, u: Array) -> Array:
        found = dynamics.messages(x, u)
        own = found.local - dynamics.by_region(x)
        same = np.eye(own.shape[1], dtype=bool)[:, :, None, None]
        return jnp.concatenate([jnp.where(same, own[:, :, None], found.cross), found.inputs], axis=2)

    used = u if model.options.ux else u[:, :0]
    return np.asarray(jax.jit(messages)(jnp.asarray(x, jnp.float32), jnp.asarray(used, jnp.float32)))
