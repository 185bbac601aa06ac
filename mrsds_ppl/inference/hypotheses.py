"""State probabilities with the latents integrated out: the likeliest hypotheses about the past, bin after bin.

Given the states, a linearised program is linear and Gaussian, so a hypothesis is a path of states with the Kalman
filter it implies. Each bin extends every hypothesis by every state and keeps the ``num_kept`` likeliest,

    log w(z_1 ... z_t) = log w(z_1 ... z_{t-1}) + log p(z_t | z_{t-1}) + log int N(x; m, P) exp(h^T x - x^T J x / 2) dx,

and p(z_{t-lag}) is read off those alive at bin t; the sum of the weights at the last bin is the evidence. Unlike
alternating between q(z) and q(x), which never leaves the bins of a switch that it started from, the time of a switch is
weighed with x free. Source: Akashi and Kumamoto (1977).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.inference.smoothing import Linear, Sites

_NEVER = -1e30


class Weighed(NamedTuple):
    """p(z_t | y), and log p(y) of each trial: exact where emissions and dynamics are linear and nothing was dropped."""

    probabilities: Float[Array, "trial bin state"]
    log_evidence: Float[Array, " trial"]


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
        linear, site: the program around a path, see :mod:`mrsds_ppl.inference.smoothing`.
        log_transition: log p(z_t = to | z_{t-1} = from) along that path.
        num_kept: hypotheses kept.
        lag: bins.
    """
    noise = networks.dynamics.noise.cholesky @ networks.dynamics.noise.cholesky.T
    first = networks.initial.noise.cholesky @ networks.initial.noise.cholesky.T
    start = jax.nn.log_softmax(networks.initial.state_logits)
    num_states, lag = linear.gain.shape[2], min(lag, site.shift.shape[1])

    def one(length: Array, gain: Array, offset: Array, precision: Array, shift: Array, moves: Array) -> Weighed:
        states = jnp.arange(num_kept) % num_states
        mean, covariance, evidence = jax.vmap(_update, (0, None, None, None))(
            networks.initial.means, first, precision[0], shift[0]
        )
        weight = jnp.where(jnp.arange(num_kept) < num_states, (start + evidence)[states], _NEVER)
        past = jnp.zeros((num_kept, lag), int).at[:, -1].set(states)

        def step(carry: Any, now: Any) -> tuple[Any, Array]:
            mean, covariance, weight, past, total = carry
            gain, offset, precision, shift, moves, bin_ = now
            ahead = jnp.einsum("kij,mj->mki", gain, mean) + offset
            spread = jnp.einsum("kij,mjl,knl->mkin", gain, covariance, gain) + noise
            means, covariances, evidence = jax.vmap(jax.vmap(_update, (0, 0, None, None)), (0, 0, None, None))(
                ahead, spread, precision, shift
            )
            scores = (weight[:, None] + moves[past[:, -1]] + evidence).reshape(-1)
            best, index = lax.top_k(scores, num_kept)
            parent, state = index // num_states, index % num_states
            latents = mean.shape[-1]
            found = (
                means.reshape(-1, latents)[index],
                covariances.reshape(-1, latents, latents)[index],
                best - best[0],
                jnp.concatenate([past[parent, 1:], state[:, None]], axis=1),
                total + best[0],
            )
            held = (mean, covariance, weight, jnp.concatenate([past[:, 1:], past[:, -1:]], axis=1), total)
            carry = jax.tree.map(lambda new, old: jnp.where(bin_ < length, new, old), found, held)
            return carry, jax.nn.softmax(carry[2]) @ jax.nn.one_hot(carry[3][:, 0], num_states)

        bins = jnp.arange(1, shift.shape[0])
        carry, judged = lax.scan(
            step,
            (mean[states], covariance[states], weight, past, jnp.zeros_like(weight[0])),
            (gain, offset, precision[1:], shift[1:], moves, bins),
        )
        last = jnp.einsum("m,mlk->lk", jax.nn.softmax(carry[2]), jax.nn.one_hot(carry[3], num_states))
        # Bin t judges bin t - lag + 1; the last one judges all that are left.
        kept = judged[lag - 2 : -1] if lag > 1 else judged[:0]
        return Weighed(jnp.concatenate([kept, last]), carry[4] + jax.nn.logsumexp(carry[2]))

    found = jax.vmap(one)(lengths, linear.gain, linear.offset, site.precision, site.shift, log_transition)
    return found._replace(log_evidence=found.log_evidence + site.constant)


def likeliest(probabilities: Float[Array, "trial bin state"]) -> Float[Array, "trial bin state"]:
    """One-hot states. Paths are smoothed for these: a blend of two states' dynamics is neither of them."""
    return jax.nn.one_hot(probabilities.argmax(-1), probabilities.shape[-1], dtype=probabilities.dtype)


def _update(mean: Array, covariance: Array, precision: Array, shift: Array) -> tuple[Array, Array, Array]:
    """Posterior of x under N(mean, covariance) and the term h^T x - x^T J x / 2, and the log of the integral."""
    spread = jnp.eye(len(mean)) + covariance @ precision
    inverse = jnp.linalg.inv(spread)
    after = inverse @ covariance
    after = (after + after.T) / 2
    rest = shift - precision @ mean
    log_mass = shift @ mean - 0.5 * mean @ precision @ mean + 0.5 * rest @ after @ rest
    return inverse @ (mean + covariance @ shift), after, log_mass - 0.5 * jnp.linalg.slogdet(spread)[1]
