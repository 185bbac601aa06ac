"""Draws of the states given all signals, latents summed out: backwards from the mixtures of the Gaussian-sum filter.

From the last bin to the first, with the states z_{t+1} ... z_T drawn,

    p(z_t | z_{t+1} ... z_T, y)  ~  sum over components c in state z_t of
        w_t(c) p(z_{t+1} | z_t) int N(x_t; m_t(c), P_t(c)) p(y_{t+1} ... y_T | x_t, z_{t+1} ... z_T) dx_t.

Given its states the future is linear and Gaussian, so that its likelihood is known in closed form,

    log p(y_{t+1} ... y_T, z_{t+1} ... z_T | x_t, z_t)  =  log p(z_{t+1} | z_t) + c_t + h_t^T x_t - x_t^T L_t x_t / 2.

The draws are exact if the mixtures are. Otherwise what the filter has merged is wrong in them, and nothing else: where
a switch was is weighed with x free, and nothing of the future is left out, as Kim's smoother (1994) does, which takes
p(z_t | z_{t+1}, y_1 ... y_t) for p(z_t | z_{t+1}, y). The weight p(z, y) / q(z | y) of each draw says how much is
wrong: its mean estimates p(y) without bias, and where nothing was merged it is p(y) in every draw.

Source: Särkkä, Bunch and Godsill (2012); Lindsten, Bunch, Särkkä, Schön and Godsill (2016), whose particles are here
the components of a mixture. Components and draws stand before trials, which are last.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mrsds_ppl.statespace.gaussian_sum import FilteredMixtures, filtered_mixtures
from mrsds_ppl.statespace.linear_gaussian import SharedTerms, TrialTerms
from mrsds_ppl.statespace.measurement_update import update
from mrsds_ppl.statespace.small_matrices import applied, congruence, inverse, product


class StateDraws(NamedTuple):
    """Paths of states, p(z_t | z_{t+1} ... z_T, y) averaged over them, and log p(z, y) - log q(z | y) of each.

    The average has the mean of the draws' frequencies and less variance. In padding stands a trial's last bin.
    """

    states: Int[Array, "trial draw bin"]
    probabilities: Float[Array, "trial bin state"]
    log_weight: Float[Array, "trial draw"]


class _Future(NamedTuple):
    """c, h and L: what the bins after this one say of its latents, for the states that were drawn for them."""

    constant: Float[Array, "draw trial"]
    shift: Float[Array, "latent draw trial"]
    precision: Float[Array, "latent latent draw trial"]


class _Drawn(NamedTuple):
    """State of a bin and the log of its probability; the probabilities of all states, averaged over draws."""

    state: Int[Array, "draw trial"]
    log_prob: Float[Array, "draw trial"]
    probabilities: Float[Array, "state trial"]


def simulate_states(
    key: PRNGKeyArray, shared: SharedTerms, trials: TrialTerms, *, draws: int, order: int = 2
) -> StateDraws:
    """Draws of z ~ p(z_1 ... z_T | y) of every trial.

    Args:
        key: random key.
        shared, trials: the program.
        draws: their number.
        order: states of a history of the filter; see :func:`mrsds_ppl.statespace.gaussian_sum.filtered_mixtures`.
    """
    mixtures = filtered_mixtures(shared, trials, order=order)
    (num_bins, _, num_trials), kind = mixtures.weight.shape, mixtures.weight.dtype
    num_states, latents = len(shared.first_log_prob), shared.noise_covariance.shape[0]
    # Bins first, trials last.
    gains, offsets = jnp.moveaxis(trials.steps.gain, 0, -1), jnp.moveaxis(trials.steps.offset, 0, -1)
    precisions, shifts = jnp.moveaxis(trials.signals.precision, 0, -1), jnp.moveaxis(trials.signals.shift, 0, -1)
    arrivals = jnp.transpose(trials.log_transition, (1, 3, 2, 0))
    root = jnp.linalg.cholesky(shared.noise_covariance)

    def back(carry: tuple[_Future, _Drawn], now: tuple[Array, ...]) -> tuple[tuple[_Future, _Drawn], _Drawn]:
        (later, after), (gain, offset, precision, shift, arrival, key, bin_, *here) = carry, now
        step = _of_state(gain, after.state), _of_state(offset, after.state)
        future, leaving = _before(_seen(later, precision, shift), *step, root), _of_state(arrival, after.state)
        drawn = _draw(key, FilteredMixtures(*here), future, leaving)
        future = future._replace(constant=future.constant + _at(leaving, drawn.state))
        found, held = (future, drawn), (later, after._replace(log_prob=jnp.zeros_like(after.log_prob)))
        found = jax.tree.map(lambda new, old: jnp.where(bin_ < trials.lengths, new, old), found, held)
        return found, found[1]

    grid, keys = (draws, num_trials), random.split(key, num_bins)
    nothing = _Future(*(jnp.zeros((*size, *grid), kind) for size in ((), (latents,), (latents, latents))))
    end = FilteredMixtures(*(values[-1] for values in mixtures))
    last = _draw(keys[-1], end, nothing, jnp.zeros((num_states, *grid), kind))
    inputs = (gains, offsets, precisions[1:], shifts[1:], arrivals, keys[:-1], jnp.arange(1, num_bins))
    (future, first), drawn = lax.scan(
        back, (nothing, last), (*inputs, *(values[:-1] for values in mixtures)), reverse=True
    )
    every = jax.tree.map(lambda rest, end: jnp.concatenate([rest, end[None]]), drawn, last)
    log_joint = _log_joint(shared, _seen(future, precisions[0], shifts[0]), first.state)
    return StateDraws(
        states=jnp.transpose(every.state, (2, 1, 0)),
        probabilities=jnp.transpose(every.probabilities, (2, 0, 1)),
        log_weight=(log_joint - every.log_prob.sum(0)).T + trials.signals.constant[:, None],
    )


def _draw(key: PRNGKeyArray, here: FilteredMixtures, future: _Future, leaving: Array) -> _Drawn:
    """A state for each draw.

    Args:
        key: random key.
        here: mixture of the bin.
        future: what later bins say of this one.
        leaving: log p(z_{t+1} | z_t = from) of the states drawn for the next bin, (from, draw, trial).
    """
    _, _, mass = update(
        here.mean[:, :, None], here.covariance[:, :, :, None], future.precision[:, :, None], future.shift[:, None]
    )
    scores = (here.weight[:, None] + mass).reshape(-1, *leaving.shape)
    log_prob = jax.nn.log_softmax(jax.nn.logsumexp(scores, axis=0) + leaving, axis=0)
    state = random.categorical(key, log_prob, axis=0)
    return _Drawn(state, _at(log_prob, state), jnp.exp(log_prob).mean(1))


def _seen(future: _Future, precision: Array, shift: Array) -> _Future:
    """With the signals of the bin itself, (latent, latent, trial) and (latent, trial)."""
    return future._replace(shift=future.shift + shift[:, None], precision=future.precision + precision[:, :, None])


def _before(seen: _Future, gain: Array, offset: Array, root: Array) -> _Future:
    """What a bin and those after it say of the bin before, through the step x' = F x + b + R e with e ~ N(0, I).

    With A = I + R^T L R and G = L R the integral over e leaves

        L~ = L - G A^-1 G^T,   h~ = h - G A^-1 R^T h,   c~ = c + (h^T R A^-1 R^T h - log |A|) / 2

    of x' = F x + b, from which L = F^T L~ F, h = F^T (h~ - L~ b), c = c~ + h~^T b - b^T L~ b / 2.
    """
    noise, size = root[..., None, None], root.shape[0]
    turned = product(seen.precision, noise)
    left, log_spread = inverse(jnp.eye(size)[..., None, None] + product(jnp.swapaxes(noise, 0, 1), turned))
    pulled = applied(jnp.swapaxes(noise, 0, 1), seen.shift)
    moved = applied(left, pulled)
    precision = seen.precision - product(product(turned, left), jnp.swapaxes(turned, 0, 1))
    shift = seen.shift - applied(turned, moved)
    constant = seen.constant + 0.5 * ((pulled * moved).sum(0) - log_spread)
    curved, back = applied(precision, offset), jnp.swapaxes(gain, 0, 1)
    return _Future(
        constant + ((shift - 0.5 * curved) * offset).sum(0), applied(back, shift - curved), congruence(back, precision)
    )


def _log_joint(shared: SharedTerms, seen: _Future, state: Array) -> Array:
    """log p(z, y) up to the constant of the signals, (draw, trial), from what all bins say of the first one."""
    mean = shared.first_means.T[:, state]
    _, _, mass = update(mean, shared.first_covariance[..., None, None], seen.precision, seen.shift)
    return shared.first_log_prob[state] + seen.constant + mass


def _of_state(table: Array, state: Array) -> Array:
    """Entries of the draws' states, (..., draw, trial), of a table (state, ..., trial)."""
    index = state.reshape(1, *(1,) * (table.ndim - 2), *state.shape)
    return jnp.take_along_axis(table[..., None, :], index, axis=0)[0]


def _at(table: Array, state: Array) -> Array:
    """Entries of the draws' states, (draw, trial), of a table (state, draw, trial)."""
    return jnp.take_along_axis(table, state[None], axis=0)[0]
