"""What the signals tell of messages, states and paths summed out: Gauss and Newton on one-step predictions.

Under given states and around a path the filter predicts x_t with mean m_t and covariance P_t, and the derivative of m_t
along coefficients c of the messages (:mod:`mrsds_ppl.analysis.weights.tangents`) follows the filter,

    d m_t / dc = F_t A_{t-1} d m_{t-1} / dc + J(x_{t-1}) V,      A_t = (1 + P_t H_t)^-1,
    I(c) = sum_t (d m_t / dc)^T (H_t^-1 + P_t)^-1 (d m_t / dc),
    g(c) = sum_t (d m_t / dc)^T (1 + H_t P_t)^-1 (h_t - H_t m_t),

with H_t the precision of the signals and h_t their shift, and J V taken at the filtered mean. I(c) is the Fisher
information and g(c) the slope of log p(y), with gains and covariances held fixed: unlike a regression on smoothed
paths, it knows how little of them the signals show. Source: Ljung (1999), prediction-error identification of
state-space models.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.analysis.weights.tangents import Tangents, features
from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.models.linearised import linearised, shared_terms
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.statespace.linear_gaussian import Latents, SharedTerms, States, TrialTerms, valid_bins
from mrsds_ppl.statespace.small_matrices import applied, congruence, inverse, product

# I is symmetric: products are of so many coefficients with themselves and those behind them, not with those before.
_BLOCK = 512
Vectors = Float[Array, "pair trial latent"]
Matrices = Float[Array, "pair trial latent latent"]
# d m_t / dc after the signals, g, and the rows of I block by block.
_Sums = tuple[Array, Array, list[Array]]


class Known(NamedTuple):
    """I(c) of all trials together, and g(c) of each."""

    information: Float[Array, "coefficient coefficient"]
    slope: Float[Array, "trial coefficient"]


@partial(compiled, static_argnames="model")
def information(
    networks: Networks, tangents: Tangents, model: MRSDS, batch: Batch, x: Latents, states: States
) -> Known:
    """What trials tell, the coefficients in the order of ``tangents.scales``.

    Args:
        networks, model: the program.
        tangents: of its messages.
        batch: trials.
        x: their paths.
        states: probabilities of their states.
    """
    shared, given = shared_terms(networks), linearised(networks, model, batch, x)
    u = model.dynamics_inputs(batch.u)[:, 1:]
    # In padded bins, which no signal holds, dynamics of any state could run away.
    states = jnp.where(valid_bins(batch.lengths, x.shape[1])[..., None], states, 0.0)
    weight = states[:, 1:]

    def forced(means: Array) -> Array:
        count = means.shape[0] * means.shape[1]
        rows = [a.reshape(count, a.shape[-1]) for a in (means, u, weight)]
        made = _dense(networks.dynamics, features(networks.dynamics, tangents, *rows[:2]), rows[2])
        return made.reshape(*means.shape, -1)

    return filter_information(shared, given, states, forced)


def _dense(dynamics: Dynamics, said: Array, weight: Array) -> Float[Array, "row latent coefficient"]:
    """What each coefficient adds to the next latents, averaged over states, of features and weights (row, state)."""
    weighted = said * weight.T[None, :, None, None, :, None]
    if dynamics.options.zcond:
        weighted = weighted.sum(1, keepdims=True)
    count, groups, regions, sources, rows, _ = weighted.shape
    blocks = []
    for target, size in enumerate(dynamics.latent_sizes):
        own = jnp.transpose(weighted[:, :, target, ..., :size], (3, 4, 1, 2, 0))
        block = jnp.zeros((rows, size, groups, regions, sources, count), own.dtype).at[:, :, :, target].set(own)
        blocks.append(block.reshape(rows, size, -1))
    return jnp.concatenate(blocks, axis=1)


def filter_information(
    shared: SharedTerms, given: TrialTerms, states: Array, forced: Callable[[Array], Array]
) -> Known:
    """What a linearised program tells.

    Args:
        shared, given: the program. Padded bins have H = 0 and tell nothing.
        states: probabilities, (trial, bin, state).
        forced: what coefficients add to each step, (trial, pair, latent, coefficient), from where the filter is.
    """
    passed = _filtered(shared, given, states)
    added = jnp.moveaxis(forced(jnp.moveaxis(passed.means, 0, 1)), 1, 0)
    _, trials, latents, size = added.shape
    blocks = [slice(first, min(first + _BLOCK, size)) for first in range(0, size, _BLOCK)]

    def summed(carry: _Sums, now: tuple[_Filtered, Array]) -> tuple[_Sums, None]:
        (along, slope, upper), (here, added) = carry, now
        along = here.gain @ along + added
        weighed = (here.weight @ along).reshape(trials * latents, size)
        flat = along.reshape(trials * latents, size)
        upper = [rows + flat[:, own].T @ weighed[:, own.start :] for rows, own in zip(upper, blocks, strict=True)]
        return (here.shrink @ along, slope + jnp.einsum("bi,bic->bc", here.missed, along), upper), None

    kind = added.dtype
    nothing = [jnp.zeros((own.stop - own.start, size - own.start), kind) for own in blocks]
    begun = jnp.zeros((trials, latents, size), kind), jnp.zeros((trials, size), kind), nothing
    _, slope, upper = lax.scan(summed, begun, (passed, added))[0]
    whole = jnp.concatenate([jnp.pad(rows, ((0, 0), (own.start, 0))) for rows, own in zip(upper, blocks, strict=True)])
    return Known(jnp.triu(whole) + jnp.triu(whole, 1).T, slope)


class _Filtered(NamedTuple):
    """F_t, where x_{t-1} is by the filter, A_t, (H_t^-1 + P_t)^-1 and (1 + H_t P_t)^-1 (h_t - H_t m_t)."""

    gain: Matrices
    means: Vectors
    shrink: Matrices
    weight: Matrices
    missed: Vectors


def _filtered(shared: SharedTerms, given: TrialTerms, states: Array) -> _Filtered:
    """One history of each trial, its states averaged in every bin."""
    noise, signals = shared.noise_covariance[..., None], given.signals
    gain = jnp.einsum("btk,btkij->tijb", states[:, 1:], given.steps.gain)
    offset = jnp.einsum("btk,btki->tib", states[:, 1:], given.steps.offset)
    precision, shift = jnp.transpose(signals.precision, (1, 2, 3, 0)), jnp.transpose(signals.shift, (1, 2, 0))

    def update(mean: Array, spread: Array, precision: Array, shift: Array) -> tuple[Array, ...]:
        known = inverse(spread)[0]
        after = inverse(known + precision)[0]
        shrink, rest = product(after, known), shift - applied(precision, mean)
        return mean + applied(after, rest), after, shrink, applied(jnp.swapaxes(shrink, 0, 1), rest)

    def filtered(carry: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        mean, spread = carry
        gain, offset, precision, shift = now
        ahead, spread = applied(gain, mean) + offset, congruence(gain, spread) + noise
        after, spread, shrink, missed = update(ahead, spread, precision, shift)
        weight = product(precision, shrink)
        return (after, spread), (mean, shrink, (weight + jnp.swapaxes(weight, 0, 1)) / 2, missed)

    start = jnp.broadcast_to(shared.first_covariance[..., None], precision.shape[1:])
    mean, spread, *_ = update((states[:, 0] @ shared.first_means).T, start, precision[0], shift[0])
    _, told = lax.scan(filtered, (mean, spread), (gain, offset, precision[1:], shift[1:]))
    return _Filtered(*(jnp.moveaxis(leaf, -1, 1) for leaf in (gain, *told)))
