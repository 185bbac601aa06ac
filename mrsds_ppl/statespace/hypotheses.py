"""State probabilities with the latents integrated out: the likeliest hypotheses about the past, bin after bin.

Given the states, a linearised program is linear and Gaussian, so a hypothesis is a path of states with the Kalman
filter it implies. Each bin extends every hypothesis by every state and keeps the ``num_kept`` likeliest,

    log w(z_1 ... z_t) = log w(z_1 ... z_{t-1}) + log p(z_t | z_{t-1}) + log int N(x; m, P) exp(h^T x - x^T J x / 2) dx,

and p(z_{t-lag}) is read off those alive at bin t; the sum of the weights at the last bin is the evidence. Unlike
alternating between q(z) and q(x), which never leaves the bins of a switch that it started from, the time of a switch is
weighed with x free. Source: Akashi and Kumamoto (1977).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from mrsds_ppl.statespace.small_matrices import applied, congruence, inverse, product
from mrsds_ppl.statespace.smoothing import Linear, Sites

_NEVER = -1e30


class Weighed(NamedTuple):
    """p(z_t | y), and log p(y) of each trial: exact where emissions and dynamics are linear and nothing was dropped."""

    probabilities: Float[Array, "trial bin state"]
    log_evidence: Float[Array, " trial"]


class TrialsLast(NamedTuple):
    """A linearised program as the filters read it: bins first, trials last, before them the states."""

    noise: Float[Array, "latent latent 1 1 1"]
    gains: Float[Array, "pair latent latent state trial"]
    offsets: Float[Array, "pair latent state trial"]
    precisions: Float[Array, "bin latent latent trial"]
    shifts: Float[Array, "bin latent trial"]
    moves: Float[Array, "pair from to trial"]


def trials_last(
    networks: Any, linear: Linear, site: Sites, log_transition: Float[Array, "trial pair from to"]
) -> TrialsLast:
    """The terms in the order of the filters, Q as a covariance."""
    return TrialsLast(
        noise=(networks.dynamics.noise.cholesky @ networks.dynamics.noise.cholesky.T)[..., None, None, None],
        gains=jnp.transpose(linear.gain, (1, 3, 4, 2, 0)),
        offsets=jnp.transpose(linear.offset, (1, 3, 2, 0)),
        precisions=jnp.transpose(site.precision, (1, 2, 3, 0)),
        shifts=jnp.transpose(site.shift, (1, 2, 0)),
        moves=jnp.transpose(log_transition, (1, 2, 3, 0)),
    )


def first_bin(
    networks: Any, terms: TrialsLast, count: int
) -> tuple[Float[Array, "count trial"], Float[Array, "latent count trial"], Float[Array, "latent latent count trial"]]:
    """Log weights, means and covariances of x in the first bin, where K of ``count`` filters have any weight."""
    first = (networks.initial.noise.cholesky @ networks.initial.noise.cholesky.T)[..., None, None]
    start = jax.nn.log_softmax(networks.initial.state_logits)
    mean, covariance, evidence = update(
        networks.initial.means.T[..., None], first, terms.precisions[0][:, :, None], terms.shifts[0][:, None]
    )
    num_states = len(start)
    states = jnp.arange(count) % num_states
    weight = jnp.where((jnp.arange(count) < num_states)[:, None], (start[:, None] + evidence)[states], _NEVER)
    return weight, mean[:, states], jnp.broadcast_to(covariance, (*covariance.shape[:2], count, mean.shape[-1]))


def weigh_states(
    networks: Any,
    lengths: Array,
    linear: Linear,
    site: Sites,
    log_transition: Float[Array, "trial pair from to"],
    *,
    num_kept: int = 16,
    lag: int = 20,
) -> Weighed:
    """p(z_t | y) of every trial and its evidence, each bin judged ``lag`` bins later or at the end of its trial.

    Args:
        networks: of the program; noise of dynamics and first bin are read.
        lengths: valid bins of each trial.
        linear, site: the program around a path, see :mod:`mrsds_ppl.statespace.smoothing`.
        log_transition: log p(z_t = to | z_{t-1} = from) along that path.
        num_kept: hypotheses kept.
        lag: bins.
    """
    noise, gains, offsets, precisions, shifts, moves = terms = trials_last(networks, linear, site, log_transition)
    trials, bins = site.shift.shape[:2]
    num_states, lag = linear.gain.shape[2], min(lag, bins)
    num_kept = min(num_kept, num_states**bins)  # there are no more; with one state there is one

    weight, mean, covariance = first_bin(networks, terms, num_kept)
    states = jnp.arange(num_kept) % num_states
    past = jnp.zeros((lag, num_kept, trials), int).at[-1].set(states[:, None])

    def step(carry: Any, now: Any) -> tuple[Any, Array]:
        mean, covariance, weight, past, total = carry
        gain, offset, precision, shift, moves, bin_ = now
        gain = gain[:, :, None]
        ahead = applied(gain, mean[:, :, None]) + offset[:, None]
        spread = congruence(gain, covariance[:, :, :, None]) + noise
        means, covariances, evidence = update(ahead, spread, precision[:, :, None, None], shift[:, None, None])
        # Of the states that each hypothesis may have been in, its own.
        stayed = jnp.take_along_axis(moves, past[-1][:, None], axis=0)
        scores = (weight[:, None] + stayed + evidence).reshape(-1, trials)
        best, index = lax.top_k(scores.T, num_kept)
        best, index = best.T, index.T
        parent, state = index // num_states, index % num_states
        found = (
            _chosen(means, index),
            _chosen(covariances, index),
            best - best[0],
            jnp.concatenate([_chosen(past[:, :, None], parent)[1:], state[None]]),
            total + best[0],
        )
        held = (mean, covariance, weight, jnp.concatenate([past[1:], past[-1:]]), total)
        carry = jax.tree.map(lambda new, old: jnp.where(bin_ < lengths, new, old), found, held)
        return carry, _shares(carry[2], carry[3][:1], num_states)[0]

    carry, judged = lax.scan(
        step,
        (mean, covariance, weight, past, jnp.zeros_like(weight[0])),
        (gains, offsets, precisions[1:], shifts[1:], moves, jnp.arange(1, bins)),
    )
    # Bin t judges bin t - lag + 1; the last one judges all that are left.
    kept = judged[lag - 2 : -1] if lag > 1 else judged[:0]
    probabilities = jnp.concatenate([kept, _shares(carry[2], carry[3], num_states)])
    log_evidence = carry[4] + jax.nn.logsumexp(carry[2], axis=0) + site.constant
    return Weighed(jnp.moveaxis(probabilities, -1, 0), log_evidence)


def likeliest(probabilities: Float[Array, "trial bin state"]) -> Float[Array, "trial bin state"]:
    """One-hot states. Paths are smoothed for these: a blend of two states' dynamics is neither of them."""
    return jax.nn.one_hot(probabilities.argmax(-1), probabilities.shape[-1], dtype=probabilities.dtype)


def _chosen(values: Array, index: Array) -> Array:
    """Of values (..., hypothesis, state, trial) those at chosen pairs: (..., hypothesis, trial)."""
    flat = values.reshape(*values.shape[:-3], -1, values.shape[-1])
    return jnp.take_along_axis(flat, index.reshape((1,) * (flat.ndim - 2) + index.shape), axis=-2)


def _shares(weight: Array, past: Array, num_states: int) -> Array:
    """p(z) in bins of the past, (bin, state, trial), from log weights and states of the hypotheses."""
    share = jax.nn.softmax(weight, axis=0)
    return jnp.stack([jnp.where(past == state, share, 0.0).sum(1) for state in range(num_states)], axis=1)


@jax.custom_jvp
def update(mean: Array, covariance: Array, precision: Array, shift: Array) -> tuple[Array, Array, Array]:
    """Posterior of x under N(mean, covariance) and the term h^T x - x^T J x / 2, and the log of the integral."""
    return _updated(mean, covariance, precision, shift)[0]


def _updated(
    mean: Array, covariance: Array, precision: Array, shift: Array
) -> tuple[tuple[Array, Array, Array], Array]:
    """The above, and the inverse of the covariance."""
    known, log_spread = inverse(covariance)
    after, log_after = inverse(known + precision)
    pulled = applied(precision, mean)
    rest = shift - pulled
    moved = applied(after, rest)
    log_mass = (shift * mean).sum(0) - 0.5 * (mean * pulled).sum(0) + 0.5 * (rest * moved).sum(0)
    return (mean + moved, after, log_mass - 0.5 * (log_spread + log_after)), known


@partial(update.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Of the posterior N(m', P') with l = h - J m' and S = P' P^-1, in fewer products than through the inverses,

    dm' = S (dm + dP l) + P' (dh - dJ m'),              dP' = S dP S^T - P' dJ P',
    d log int = l^T dm + m'^T dh + (l^T dP l - tr((P^-1 - P^-1 P' P^-1) dP) - m'^T dJ m' - tr(P' dJ)) / 2.
    """
    (mean, after, log_mass), known = _updated(*primals)
    _, _, precision, shift = primals
    moved, spread, sharpened, pushed = tangents
    left, kept = shift - applied(precision, mean), product(after, known)
    pull, curve, mass = jnp.zeros_like(mean), jnp.zeros_like(after), jnp.zeros_like(log_mass)
    if not isinstance(moved, SymbolicZero):
        pull, mass = pull + applied(kept, moved), mass + (left * moved).sum(0)
    if not isinstance(spread, SymbolicZero):
        towards = applied(spread, left)
        pull, curve = pull + applied(kept, towards), curve + congruence(kept, spread)
        lost = (known - product(known, kept)) * spread
        mass = mass + 0.5 * ((left * towards).sum(0) - lost.sum((0, 1)))
    if not isinstance(sharpened, SymbolicZero):
        towards = applied(sharpened, mean)
        pull, curve = pull - applied(after, towards), curve - congruence(after, sharpened)
        mass = mass - 0.5 * ((mean * towards).sum(0) + (after * sharpened).sum((0, 1)))
    if not isinstance(pushed, SymbolicZero):
        pull, mass = pull + applied(after, pushed), mass + (mean * pushed).sum(0)
    return (mean, after, log_mass), (pull, curve, mass)
