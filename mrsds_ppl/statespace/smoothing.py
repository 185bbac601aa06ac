"""Laplace smoothing: the Gaussian law of a path x under a switching program linearised around a path.

Around a path m, with state probabilities w_t(k),

    f_k(x) ~ F_tk x + b_tk,      log p(y_t | x) ~ c_t + h_t^T x - x^T J_t x / 2,
    J_t = G^T V^-1 G (Gauss and Newton),   h_t = J_t m_t + grad log p(y_t | m_t),   G = dE(y_t)/dx, V = var(y_t),

and q(x) maximises the bound with the states fixed: a Gaussian chain of block-tridiagonal precision, solved exactly by
one pass forwards and one back. Repeating it around its own mean finds the mode. Source: Rauch, Tung and Striebel
(1965) in the information form; Zoltowski, Pillow and Linderman (2020) for the switching model.
"""

from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.statespace.small_matrices import applied, batch_first, batch_last, inverse, product


class Linear(NamedTuple):
    """F_tk and b_tk of the step into bins 2 ... T, for every state."""

    gain: Float[Array, "trial pair state latent latent"]
    offset: Float[Array, "trial pair state latent"]


class Sites(NamedTuple):
    """J_t and h_t: what the signals of a bin say about its latents; c_t summed over the bins of a trial."""

    precision: Float[Array, "trial bin latent latent"]
    shift: Float[Array, "trial bin latent"]
    constant: Float[Array, " trial"]


class PathMoments(NamedTuple):
    """Mean, Cov(x_t) and Cov(x_t, x_{t+1}) of each bin; the last bin's ``lagged`` is zero."""

    mean: Float[Array, "trial bin latent"]
    covariance: Float[Array, "trial bin latent latent"]
    lagged: Float[Array, "trial bin latent latent"]


def linearise(dynamics: Any, x: Float[Array, "trial bin latent"], u: Float[Array, "trial bin input"]) -> Linear:
    """The dynamics of every state to first order around a path.

    Args:
        dynamics: has ``means(x, u)``, (state, row, latent).
        x: the path.
        u: inputs that the dynamics read; width 0 for none.
    """
    trials, bins, latents = x.shape
    before, inputs = x[:, :-1].reshape(-1, latents), u[:, 1:].reshape(trials * (bins - 1), u.shape[-1])
    means, along = jax.linearize(lambda rows: dynamics.means(rows, inputs), before)
    columns = lax.map(lambda axis: along(jnp.broadcast_to(axis, before.shape)), jnp.eye(latents, dtype=x.dtype))
    gain = jnp.moveaxis(columns, 0, -1)
    offset = means - jnp.einsum("krij,rj->kri", gain, before)
    shape = (trials, bins - 1, means.shape[0])
    return Linear(
        jnp.moveaxis(gain, 0, 1).reshape(*shape, latents, latents), jnp.moveaxis(offset, 0, 1).reshape(*shape, latents)
    )


def sites(emissions: Any, batch: Batch, x: Float[Array, "trial bin latent"]) -> Sites:
    """Gaussian terms of the signals that an encoder may see, around a path; padded bins have none."""
    seen = batch.observed & batch.visible & valid_bins(batch)[..., None]
    signals = jnp.where(seen, batch.y, 0.0)

    def log_prob(path: Array) -> tuple[Array, Array]:
        each = emissions.law(path, seen).log_prob(signals)
        return each.sum(), each

    slope, each = jax.grad(log_prob, has_aux=True)(x)
    weight = jnp.where(seen, 1.0 / emissions.variance_of(emissions.activity(x)), 0.0)

    # A neuron sees one region, so that one derivative serves a latent of every region at once.
    sizes, owner = emissions.readout.latent_sizes, emissions.readout.owner()
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    member = jnp.asarray(owner[:, None] == np.arange(len(sizes)), x.dtype)

    def column(within: int) -> Array:
        axis = np.zeros(x.shape[-1])
        axis[[start + within for start, size in zip(starts, sizes, strict=True) if within < size]] = 1.0
        return jax.jvp(emissions.activity, (x,), (jnp.broadcast_to(jnp.asarray(axis, x.dtype), x.shape),))[1]

    columns = [column(within) for within in range(max(sizes))]
    precision = jnp.zeros((*x.shape, x.shape[-1]), x.dtype)
    for i, j in combinations_with_replacement(range(max(sizes)), 2):
        regions = [r for r, size in enumerate(sizes) if j < size]
        block = ((columns[i] * weight * columns[j]) @ member)[..., regions]
        rows, others = starts[regions] + i, starts[regions] + j
        precision = precision.at[..., rows, others].set(block).at[..., others, rows].set(block)
    curved = jnp.einsum("btij,btj->bti", precision, x)
    return Sites(precision, curved + slope, each - (x * (slope + curved / 2)).sum((1, 2)))


def linearised(
    networks: Any, batch: Batch, x: Float[Array, "trial bin latent"], u: Float[Array, "trial bin input"]
) -> tuple[Linear, Sites]:
    """Dynamics and signals around a path; see :func:`linearise` and :func:`sites`."""
    return linearise(networks.dynamics, x, u), sites(networks.emissions, batch, x)


def smooth_path(
    networks: Any, batch: Batch, linear: Linear, site: Sites, states: Float[Array, "trial bin state"]
) -> PathMoments:
    """The Gaussian chain of the linearised program under given state probabilities; standard normal in padding."""
    latents = site.shift.shape[-1]
    precision, first = _inverse(networks.dynamics.noise.cholesky), _inverse(networks.initial.noise.cholesky)
    valid = valid_bins(batch).T
    gain, offset = batch_last(linear.gain), jnp.moveaxis(linear.offset, -1, 0)
    weight = jnp.where(valid[1:].T[..., None], states[:, 1:], 0.0)
    # Expectations over the states of the terms of -(x_t - F x_{t-1} - b)^T Q^-1 (x_t - F x_{t-1} - b) / 2.
    weighted = weight * product(precision[..., None, None, None], gain)
    turned = jnp.swapaxes(weighted, 0, 1)
    # Trials stand last, before them bins.
    across = weighted.sum(-1).transpose(0, 1, 3, 2)
    before = product(turned, gain).sum(-1).transpose(0, 1, 3, 2)
    before_shift = applied(turned, offset).sum(-1).transpose(0, 2, 1)
    now_shift = applied(precision[..., None, None], (weight * offset).sum(-1).transpose(0, 2, 1))
    own = batch_last(site.precision).swapaxes(-1, -2)
    later = valid.at[0].set(False)
    diagonal = own + later * precision[..., None, None] + _after(before)
    diagonal = diagonal + jnp.where(valid, 0.0, 1.0) * jnp.eye(latents)[..., None, None]
    diagonal = diagonal.at[:, :, 0].add(first[..., None])
    shift = jnp.transpose(site.shift, (2, 1, 0)) + _before(now_shift) - _after(before_shift)
    shift = shift.at[:, 0].add(first @ (states[:, 0] @ networks.initial.means).T)
    mean, covariance, lagged = _solve(*(jnp.moveaxis(a, -2, 0) for a in (diagonal, _before(-across), shift)))
    return PathMoments(mean.transpose(2, 0, 1), covariance.transpose(3, 0, 1, 2), lagged.transpose(3, 0, 1, 2))


def chain_of(moments: PathMoments) -> tuple[Array, Array, Array]:
    """m_t, A_t and L_t of the chain x_t - m_t = A_t (x_{t-1} - m_{t-1}) + L_t eps_t with these moments."""
    mean, covariance, lagged = moments
    eye = jnp.eye(mean.shape[-1], dtype=mean.dtype)
    previous = jnp.concatenate([jnp.broadcast_to(eye, covariance[:, :1].shape), covariance[:, :-1]], axis=1)
    lag = batch_last(jnp.concatenate([jnp.zeros_like(lagged[:, :1]), lagged[:, :-1]], axis=1))
    gain = product(jnp.swapaxes(lag, 0, 1), inverse(batch_last(previous))[0])
    left = covariance - batch_first(product(gain, lag))
    # A trace of noise keeps the factor real where float32 has rounded.
    factor = jnp.linalg.cholesky((left + jnp.swapaxes(left, -1, -2)) / 2 + 1e-7 * eye)
    return mean, batch_first(gain), factor


@jax.jit
def independent_scales(moments: PathMoments) -> Float[Array, "trial bin latent"]:
    """Scales of the independent normals nearest to these moments: s_i^2 = 1 / (C^-1)_ii minimises KL(q || N(m, C)).

    The chain has (C^-1)_tt = Q_t^-1 + A_{t+1}^T Q_{t+1}^-1 A_{t+1} with Q_t = L_t L_t^T.
    """
    _, gain, factor = chain_of(moments)
    precision, gain = inverse(batch_last(factor @ jnp.swapaxes(factor, -1, -2)))[0], batch_last(gain)
    before = (gain * product(precision, gain)).sum(0)
    later = jnp.concatenate([before[..., 1:], jnp.zeros_like(before[..., :1])], axis=-1)
    return lax.rsqrt(jnp.diagonal(precision) + jnp.moveaxis(later, 0, -1))


def valid_bins(batch: Batch) -> Array:
    """True in the bins of a trial, (trial, bin)."""
    return jnp.arange(batch.y.shape[1]) < batch.lengths[:, None]


def _solve(diagonal: Array, below: Array, shift: Array) -> tuple[Array, Array, Array]:
    """Mean, blocks of the inverse and lagged blocks, bins first, trials last; ``below`` is the block (t, t-1)."""

    def forwards(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        (covariance, rest), (block, lower, towards) = carry, now
        gain = product(lower, covariance)
        rest = towards - applied(gain, rest)
        covariance = inverse(block - product(gain, jnp.swapaxes(lower, 0, 1)))[0]
        return (covariance, rest), (covariance, rest)

    def backwards(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        (mean, covariance), (filtered, rest, lower) = carry, now
        gain = -product(filtered, jnp.swapaxes(lower, 0, 1))
        lagged = product(gain, covariance)
        mean = applied(filtered, rest) + applied(gain, mean)
        covariance = filtered + product(lagged, jnp.swapaxes(gain, 0, 1))
        return (mean, covariance), (mean, covariance, lagged)

    zeros = jnp.zeros_like(shift[0]), jnp.zeros_like(diagonal[0])
    _, (filtered, rests) = lax.scan(forwards, zeros[::-1], (diagonal, below, shift))
    above = jnp.concatenate([below[1:], jnp.zeros_like(below[:1])])
    _, moments = lax.scan(backwards, zeros, (filtered, rests, above), reverse=True)
    return moments


def _inverse(cholesky: Array) -> Array:
    return jnp.linalg.inv(cholesky @ cholesky.T)


def _after(pairs: Array) -> Array:
    return jnp.concatenate([pairs, jnp.zeros_like(pairs[..., :1, :])], axis=-2)


def _before(pairs: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(pairs[..., :1, :]), pairs], axis=-2)
