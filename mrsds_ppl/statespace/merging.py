"""log p(y) and expected transitions of a switching program: a Gaussian filter for each history of the last few states.

Given the states, a linearised program is linear and Gaussian. A history is the states of the last ``order`` bins, with
its weight, the mean and the covariance of x. Each bin extends every history by every state,

    log w(z_1 ... z_t) = log w(z_1 ... z_{t-1}) + log p(z_t | z_{t-1}) + log int N(x; m, P) exp(h^T x - x^T J x / 2) dx,

and histories that agree in the last ``order`` states are merged into one of the same mean and covariance. The number of
each transition so far goes along and is merged alike. Sources: Ackerson and Fu (1970); Kim (1994), whose filter is that
of order 1.

No path of states is dropped. The likeliest paths of :mod:`mrsds_ppl.statespace.hypotheses` tell better where a switch
was, as they remember what it did to x, but they leave out many unlikely ones, above all those with short stays: their
transitions are too rare and their evidence is too small.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.statespace.hypotheses import first_bin, trials_last, update
from mrsds_ppl.statespace.small_matrices import applied, congruence
from mrsds_ppl.statespace.smoothing import Linear, Sites


class Counted(NamedTuple):
    """log p(y) of each trial, and the number of each transition to be expected in it given all of y.

    Exact where emissions and dynamics are linear and nothing was merged: one state, or at most ``order`` bins.
    """

    log_evidence: Float[Array, " trial"]
    transitions: Float[Array, "trial from to"]


class _Histories(NamedTuple):
    """Log weight, mean and covariance of x, and transitions so far; numbered with the last state running fastest.

    ``total`` is what was taken off the weights.
    """

    weight: Float[Array, "history trial"]
    mean: Float[Array, "latent history trial"]
    covariance: Float[Array, "latent latent history trial"]
    transitions: Float[Array, "from to history trial"]
    total: Float[Array, " trial"]


def count_transitions(
    networks: Any,
    lengths: Array,
    linear: Linear,
    site: Sites,
    log_transition: Float[Array, "trial pair from to"],
    *,
    order: int = 2,
) -> Counted:
    """Evidence and expected transitions of every trial, states and latents summed out.

    Args:
        networks: of the program; noise of dynamics and first bin are read.
        lengths: valid bins of each trial.
        linear, site: the program around a path, see :mod:`mrsds_ppl.statespace.smoothing`.
        log_transition: log p(z_t = to | z_{t-1} = from) along that path.
        order: states of a history; there are K to the power of it.
    """
    noise, gains, offsets, precisions, shifts, moves = terms = trials_last(networks, linear, site, log_transition)
    trials, bins = site.shift.shape[:2]
    num_states = linear.gain.shape[2]
    count = num_states ** min(order, bins)
    split = (num_states, count // num_states)
    last = jnp.arange(count) % num_states
    is_last = jax.nn.one_hot(last, num_states, dtype=site.shift.dtype, axis=0)
    made = is_last[:, None, None, :, None] * jnp.eye(num_states)[None, :, :, None, None]

    weight, mean, covariance = first_bin(networks, terms, count)
    begun = _Histories(
        weight=weight,
        mean=mean,
        covariance=covariance,
        transitions=jnp.zeros((num_states, num_states, count, trials), mean.dtype),
        total=jnp.zeros(trials, mean.dtype),
    )

    def ordered(values: Array) -> Array:
        """(..., state, later states of the history, trial) to (..., history, trial)."""
        return jnp.swapaxes(values, -3, -2).reshape(*values.shape[:-3], count, trials)

    def step(before: _Histories, now: Any) -> tuple[_Histories, None]:
        gain, offset, precision, shift, moves, bin_ = now
        gain = gain[:, :, :, None]
        ahead = applied(gain, before.mean[:, None]) + offset[:, :, None]
        spread = congruence(gain, before.covariance[:, :, None]) + noise
        means, covariances, evidence = update(ahead, spread, precision[:, :, None, None], shift[:, None, None])

        def apart(values: Array) -> Array:
            """The oldest state, over which histories are merged, on an axis of its own, the third last."""
            return values.reshape(*values.shape[:-2], *split, trials)

        scores = apart(before.weight + jnp.swapaxes(moves[last], 0, 1) + evidence)
        weight = jax.nn.logsumexp(scores, axis=1)
        share, means = jnp.exp(scores - weight[:, None]), apart(means)
        mean = (share * means).sum(-3)
        off = means - mean[..., None, :, :]
        largest = weight.max((0, 1))
        found = _Histories(
            weight=ordered(weight - largest),
            mean=ordered(mean),
            covariance=ordered((share * (apart(covariances) + off[:, None] * off[None])).sum(-3)),
            transitions=ordered((share * apart(before.transitions[:, :, None] + made)).sum(-3)),
            total=before.total + largest,
        )
        return jax.tree.map(lambda new, old: jnp.where(bin_ < lengths, new, old), found, before), None

    end, _ = lax.scan(step, begun, (gains, offsets, precisions[1:], shifts[1:], moves, jnp.arange(1, bins)))
    expected = (jax.nn.softmax(end.weight, axis=0) * end.transitions).sum(-2)
    return Counted(
        log_evidence=end.total + jax.nn.logsumexp(end.weight, axis=0) + site.constant,
        transitions=jnp.moveaxis(expected, -1, 0),
    )
