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

import jax
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

_TINY = 1e-6


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
    valid = valid_bins(batch.lengths, x.shape[1])[:, 1:, None]
    weight = jnp.where(valid, states[:, 1:], 0.0)

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
    noise, signals = shared.noise_covariance, given.signals
    trials, _, latents = signals.shift.shape
    eye = jnp.eye(latents, dtype=signals.shift.dtype)
    gain = jnp.einsum("btk,btkij->tbij", states[:, 1:], given.steps.gain)
    offset = jnp.einsum("btk,btki->tbi", states[:, 1:], given.steps.offset)
    precision, shift = (jnp.moveaxis(a, 1, 0) for a in (signals.precision, signals.shift))

    @jax.vmap
    def update(mean: Array, spread: Array, precision: Array, shift: Array) -> tuple[Array, Array, Array, Array]:
        shrink = jnp.linalg.inv(eye + spread @ precision)
        return shrink @ (mean + spread @ shift), shrink @ spread, shrink, shrink.T @ (shift - precision @ mean)

    def filtered(carry: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        mean, spread = carry
        gain, offset, precision, shift = now
        ahead = jnp.einsum("bij,bj->bi", gain, mean) + offset
        spread = jnp.einsum("bij,bjk,blk->bil", gain, spread, gain) + noise
        after, spread, shrink, missed = update(ahead, spread, precision, shift)
        known = precision @ shrink
        root = jnp.linalg.cholesky((known + jnp.swapaxes(known, 1, 2)) / 2 + _TINY * eye)
        return (after, spread), (mean, shrink, root, missed)

    start = jnp.broadcast_to(shared.first_covariance, (trials, latents, latents))
    mean, spread, *_ = update(states[:, 0] @ shared.first_means, start, precision[0], shift[0])
    _, (means, shrink, root, missed) = lax.scan(filtered, (mean, spread), (gain, offset, precision[1:], shift[1:]))
    added = jnp.moveaxis(forced(jnp.moveaxis(means, 0, 1)), 1, 0)
    size = added.shape[-1]

    def summed(carry: tuple[Array, Known], now: tuple[Array, ...]) -> tuple[tuple[Array, Known], None]:
        along, known = carry
        gain, shrink, root, missed, added = now
        along = gain @ along + added
        seen = (jnp.swapaxes(root, 1, 2) @ along).reshape(trials * latents, size)
        slope = known.slope + jnp.einsum("bi,bic->bc", missed, along)
        return (shrink @ along, Known(known.information + seen.T @ seen, slope)), None

    kind = added.dtype
    nothing = Known(jnp.zeros((size, size), kind), jnp.zeros((trials, size), kind))
    begun = jnp.zeros((trials, latents, size), kind), nothing
    return lax.scan(summed, begun, (gain, shrink, root, missed, added))[0][1]
