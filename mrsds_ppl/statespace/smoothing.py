"""The Gaussian smoother: the law of a path x of a switching linear program under given state probabilities w_t(k).

q(x) maximises the bound with the states fixed: a Gaussian chain of block-tridiagonal precision, solved exactly by one
pass forwards and one back. Linearising a program around the mean and smoothing again finds the mode, as the iterated
Kalman smoother does. Source: Rauch, Tung and Striebel (1965) in the information form; Bell (1994) for the iteration;
Zoltowski, Pillow and Linderman (2020) for the switching model.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.statespace.linear_gaussian import Latents, Lengths, SharedTerms, States, TrialTerms, valid_bins
from mrsds_ppl.statespace.small_matrices import applied, batch_first, batch_last, inverse, product

# To so many roundings a sum of a trial's terms is known. A path that must move by less than a thousandth of its step
# stays.
_ROUNDINGS, _SMALLEST_SHARE = 100, 1e-3
Pair = tuple[Array, Array]
Triple = tuple[Array, Array, Array]


class PathMoments(NamedTuple):
    """Mean, Cov(x_t) and Cov(x_t, x_{t+1}) of each bin; the last bin's ``lagged`` is zero."""

    mean: Float[Array, "trial bin latent"]
    covariance: Float[Array, "trial bin latent latent"]
    lagged: Float[Array, "trial bin latent latent"]


def smooth_path(shared: SharedTerms, trials: TrialTerms, states: Float[Array, "trial bin state"]) -> PathMoments:
    """The Gaussian chain of a switching linear program under given state probabilities; standard normal in padding."""
    signals, (_, bins, latents) = trials.signals, trials.signals.shift.shape
    precision, first = jnp.linalg.inv(shared.noise_covariance), jnp.linalg.inv(shared.first_covariance)
    valid = valid_bins(trials.lengths, bins).T
    gain, offset = batch_last(trials.steps.gain), jnp.moveaxis(trials.steps.offset, -1, 0)
    weight = jnp.where(valid[1:].T[..., None], states[:, 1:], 0.0)
    # Expectations over the states of the terms of -(x_t - F x_{t-1} - b)^T Q^-1 (x_t - F x_{t-1} - b) / 2.
    weighted = weight * product(precision[..., None, None, None], gain)
    turned = jnp.swapaxes(weighted, 0, 1)
    # Trials stand last, before them bins.
    across = weighted.sum(-1).transpose(0, 1, 3, 2)
    before = product(turned, gain).sum(-1).transpose(0, 1, 3, 2)
    before_shift = applied(turned, offset).sum(-1).transpose(0, 2, 1)
    now_shift = applied(precision[..., None, None], (weight * offset).sum(-1).transpose(0, 2, 1))
    own = batch_last(signals.precision).swapaxes(-1, -2)
    later = valid.at[0].set(False)
    diagonal = own + later * precision[..., None, None] + _after(before)
    diagonal = diagonal + jnp.where(valid, 0.0, 1.0) * jnp.eye(latents)[..., None, None]
    diagonal = diagonal.at[:, :, 0].add(first[..., None])
    shift = jnp.transpose(signals.shift, (2, 1, 0)) + _before(now_shift) - _after(before_shift)
    shift = shift.at[:, 0].add(first @ (states[:, 0] @ shared.first_means).T)
    mean, covariance, lagged = _solve(*(jnp.moveaxis(a, -2, 0) for a in (diagonal, _before(-across), shift)))
    return PathMoments(mean.transpose(2, 0, 1), covariance.transpose(3, 0, 1, 2), lagged.transpose(3, 0, 1, 2))


def log_steps(
    shared: SharedTerms, lengths: Lengths, states: States, x: Latents, means: Float[Array, "trial pair state latent"]
) -> Float[Array, " trial"]:
    """log p(x | z) of each trial, averaged over its states, for the means of its steps; up to a constant."""
    weight = jnp.where(valid_bins(lengths, x.shape[1])[..., None], states, 0.0)
    first, later = x[:, 0, None] - shared.first_means, x[:, 1:, None] - means
    begun = jnp.einsum("tk,tki,ij,tkj->t", weight[:, 0], first, jnp.linalg.inv(shared.first_covariance), first)
    pulled = later @ jnp.linalg.inv(shared.noise_covariance)
    return -0.5 * (begun + (weight[:, 1:] * (pulled * later).sum(-1)).sum((1, 2)))


def uphill(
    log_density: Callable[[Latents], Float[Array, " trial"]],
    shared: SharedTerms,
    trials: TrialTerms,
    states: States,
    x: Latents,
    found: Latents,
) -> Latents:
    """Of each trial, the path between ``x`` and ``found`` at the first share s of 1, 1/2, 1/4 ... that gains enough.

    That is half of what the linearised program promises, (2 s - s^2) times the gain of its mode. It can promise too
    much: a count far above its mean has a slope of their distance and the curvature of the mean. Source: Armijo (1966).

    Args:
        log_density: log p(y, x | z) of paths, as :func:`log_steps` says what is of the latents.
        shared, trials: the program linearised around ``x``, where it has that density itself.
        states: probabilities.
        x: paths.
        found: the mode of the linearised program.
    """

    def linear(x: Array) -> Array:
        signals, (gain, offset) = trials.signals, trials.steps
        curved = jnp.einsum("tbij,tbj->tbi", signals.precision, x)
        told = signals.constant + (x * (signals.shift - curved / 2)).sum((1, 2))
        means = jnp.einsum("tbkij,tbj->tbki", gain, x[:, :-1]) + offset
        return told + log_steps(shared, trials.lengths, states, x, means)

    def at(share: Array) -> Array:
        return x + share[:, None, None] * (found - x)

    def again(now: Pair) -> Array:
        share, fell = now
        return (fell & (share > _SMALLEST_SHARE)).any()

    def halved(now: Pair) -> Pair:
        share, fell = now
        share = jnp.where(fell, share / 2, share)
        # A density that is no number gains nothing.
        return share, ~(log_density(at(share)) >= before + (share - share**2 / 2) * gain - rounding)

    before = linear(x)
    gain = linear(found) - before
    rounding = _ROUNDINGS * jnp.finfo(before.dtype).eps * jnp.abs(before)
    twice = jnp.full(x.shape[0], 2.0, x.dtype)
    share, fell = lax.while_loop(again, halved, (twice, jnp.ones(x.shape[0], bool)))
    return at(jnp.where(fell, 0.0, share))


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


def _solve(diagonal: Array, below: Array, shift: Array) -> Triple:
    """Mean, blocks of the inverse and lagged blocks, bins first, trials last; ``below`` is the block (t, t-1)."""

    def forwards(carry: Pair, now: Triple) -> tuple[Pair, Pair]:
        (covariance, rest), (block, lower, towards) = carry, now
        gain = product(lower, covariance)
        rest = towards - applied(gain, rest)
        covariance = inverse(block - product(gain, jnp.swapaxes(lower, 0, 1)))[0]
        return (covariance, rest), (covariance, rest)

    def backwards(carry: Pair, now: Triple) -> tuple[Pair, Triple]:
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


def _after(pairs: Array) -> Array:
    return jnp.concatenate([pairs, jnp.zeros_like(pairs[..., :1, :])], axis=-2)


def _before(pairs: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(pairs[..., :1, :]), pairs], axis=-2)
