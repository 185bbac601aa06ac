"""Draws of states and latents given all signals: states backwards from the Gaussian-sum filter, latents forwards again.

From the last bin to the first, with the states z_{t+1} ... z_T drawn,

    p(z_t | z_{t+1} ... z_T, y)  ~  sum over components c in state z_t of
        w_t(c) p(z_{t+1} | z_t) int N(x_t; m_t(c), P_t(c)) p(y_{t+1} ... y_T | x_t, z_{t+1} ... z_T) dx_t.

Given its states the future is linear and Gaussian, so that its likelihood is known in closed form,

    log p(y_{t+1} ... y_T, z_{t+1} ... z_T | x_t, z_t)  =  log p(z_{t+1} | z_t) + c_t + h_t^T x_t - x_t^T L_t x_t / 2.

The draws are exact if the mixtures are. Otherwise what the filter has merged is wrong in them, and nothing else: where
a switch was is weighed with x free, and nothing of the future is left out, as Kim's smoother (1994) does, which takes
p(z_t | z_{t+1}, y_1 ... y_t) for p(z_t | z_{t+1}, y). The weight p(z, y) / q(z | y) of each draw says how much is
wrong: its mean estimates p(y) without bias, and where nothing was merged it is p(y) in every draw.

With all states drawn the latents follow from the first bin to the last, exactly, with h and L of the next bin's own
signals added to those of the future,

    x_{t+1} | x_t, z, y  ~  N(m + C (h - L m), C),      m = F x_t + b,      C = (Q^-1 + L)^-1.

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
from mrsds_ppl.statespace.small_matrices import applied, batch_first, batch_last, congruence, inverse, product


class PathDraws(NamedTuple):
    """Paths of states and of latents, and what is known of both without drawing all of it.

    ``probabilities`` are p(z_t | z_{t+1} ... z_T, y) averaged over draws: their mean is that of the draws' frequencies,
    and their variance is less. ``means`` are E(x | z, y), and ``log_weight`` is log p(z, y) - log q(z | y). In padding
    stands a trial's last bin, or nothing of meaning.
    """

    states: Int[Array, "trial draw bin"]
    probabilities: Float[Array, "trial bin state"]
    log_weight: Float[Array, "trial draw"]
    means: Float[Array, "trial draw bin latent"]
    x: Float[Array, "trial draw bin latent"]


class _Future(NamedTuple):
    """c, h and L: what the bins after this one say of its latents, for the states that were drawn for them."""

    constant: Float[Array, "draw trial"]
    shift: Float[Array, "latent draw trial"]
    precision: Float[Array, "latent latent draw trial"]


class _Ahead(NamedTuple):
    """C, h and L of a bin and all after it, and the step into it in the state that was drawn for it."""

    covariance: Float[Array, "latent latent draw trial"]
    shift: Float[Array, "latent draw trial"]
    precision: Float[Array, "latent latent draw trial"]
    gain: Float[Array, "latent latent draw trial"]
    offset: Float[Array, "latent draw trial"]


class _Drawn(NamedTuple):
    """State of a bin and the log of its probability; the probabilities of all states, averaged over draws."""

    state: Int[Array, "draw trial"]
    log_prob: Float[Array, "draw trial"]
    probabilities: Float[Array, "state trial"]


def simulate_paths(
    key: PRNGKeyArray, shared: SharedTerms, trials: TrialTerms, *, draws: int, order: int = 2
) -> PathDraws:
    """Draws of z, x ~ p(z, x | y) of every trial.

    Args:
        key: random key.
        shared, trials: the program.
        draws: their number.
        order: states of a history of the filter; see :func:`mrsds_ppl.statespace.gaussian_sum.filtered_mixtures`.
    """
    state_key, path_key = random.split(key)
    mixtures = filtered_mixtures(shared, trials, order=order)
    (num_bins, _, num_trials), kind = mixtures.weight.shape, mixtures.weight.dtype
    num_states, latents = len(shared.first_log_prob), shared.noise_covariance.shape[0]
    # Bins first, trials last.
    gains, offsets = jnp.moveaxis(trials.steps.gain, 0, -1), jnp.moveaxis(trials.steps.offset, 0, -1)
    precisions, shifts = jnp.moveaxis(trials.signals.precision, 0, -1), jnp.moveaxis(trials.signals.shift, 0, -1)
    arrivals = jnp.transpose(trials.log_transition, (1, 3, 2, 0))
    root = jnp.linalg.cholesky(shared.noise_covariance)

    def back(
        carry: tuple[_Future, _Drawn], now: tuple[Array, ...]
    ) -> tuple[tuple[_Future, _Drawn], tuple[_Drawn, _Ahead]]:
        (later, after), (gain, offset, precision, shift, arrival, key, bin_, *here) = carry, now
        step, leaving = (_of_state(gain, after.state), _of_state(offset, after.state)), _of_state(arrival, after.state)
        seen = _seen(later, precision, shift)
        future, covariance = _before(seen, *step, root)
        drawn = _draw(key, FilteredMixtures(*here), future, leaving)
        future = future._replace(constant=future.constant + _at(leaving, drawn.state))
        found, held = (future, drawn), (later, after._replace(log_prob=jnp.zeros_like(after.log_prob)))
        found = jax.tree.map(lambda new, old: jnp.where(bin_ < trials.lengths, new, old), found, held)
        return found, (found[1], _Ahead(covariance, seen.shift, seen.precision, *step))

    grid, keys = (draws, num_trials), random.split(state_key, num_bins)
    nothing = _Future(*(jnp.zeros((*size, *grid), kind) for size in ((), (latents,), (latents, latents))))
    end = FilteredMixtures(*(values[-1] for values in mixtures))
    last = _draw(keys[-1], end, nothing, jnp.zeros((num_states, *grid), kind))
    inputs = (gains, offsets, precisions[1:], shifts[1:], arrivals, keys[:-1], jnp.arange(1, num_bins))
    (future, first), (drawn, ahead) = lax.scan(
        back, (nothing, last), (*inputs, *(values[:-1] for values in mixtures)), reverse=True
    )
    every = jax.tree.map(lambda rest, end: jnp.concatenate([rest, end[None]]), drawn, last)
    seen, start = _seen(future, precisions[0], shifts[0]), shared.first_means.T[:, first.state]
    mean, covariance, mass = update(start, shared.first_covariance[..., None, None], seen.precision, seen.shift)
    log_joint = shared.first_log_prob[first.state] + seen.constant + mass
    means, x = _forward(path_key, mean, covariance, ahead)
    return PathDraws(
        states=jnp.transpose(every.state, (2, 1, 0)),
        probabilities=jnp.transpose(every.probabilities, (2, 0, 1)),
        log_weight=(log_joint - every.log_prob.sum(0)).T + trials.signals.constant[:, None],
        means=jnp.transpose(means, (3, 2, 0, 1)),
        x=jnp.transpose(x, (3, 2, 0, 1)),
    )


def _forward(key: PRNGKeyArray, mean: Array, covariance: Array, ahead: _Ahead) -> tuple[Array, Array]:
    """E(x | z, y) and a draw of x for each draw of the states, (bin, latent, draw, trial).

    Args:
        key: random key.
        mean, covariance: of the first bin.
        ahead: of the later ones.
    """
    noise = random.normal(key, (len(ahead.shift) + 1, *mean.shape), mean.dtype)

    def step(carry: tuple[Array, Array], now: tuple[_Ahead, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        to, noise = now

        def led(x: Array) -> Array:
            there = applied(to.gain, x) + to.offset
            return there + applied(to.covariance, to.shift - applied(to.precision, there))

        mean, x = carry
        found = led(mean), led(x) + _spread(to.covariance, noise)
        return found, found

    first = mean, mean + _spread(covariance, noise[0])
    _, later = lax.scan(step, first, (ahead, noise[1:]))
    return jax.tree.map(lambda begun, rest: jnp.concatenate([begun[None], rest]), first, later)


def _spread(covariance: Array, noise: Array) -> Array:
    """Standard noise (latent, draw, trial) made one of these covariances."""
    return applied(batch_last(jnp.linalg.cholesky(batch_first(covariance))), noise)


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


def _before(seen: _Future, gain: Array, offset: Array, root: Array) -> tuple[_Future, Array]:
    """What a bin and those after it say of the bin before, through the step x' = F x + b + R e with e ~ N(0, I); and C.

    With A = I + R^T L R and G = L R the integral over e leaves

        L~ = L - G A^-1 G^T,   h~ = h - G A^-1 R^T h,   c~ = c + (h^T R A^-1 R^T h - log |A|) / 2

    of x' = F x + b, from which L = F^T L~ F, h = F^T (h~ - L~ b), c = c~ + h~^T b - b^T L~ b / 2. And C = R A^-1 R^T.
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
    constant = constant + ((shift - 0.5 * curved) * offset).sum(0)
    future = _Future(constant, applied(back, shift - curved), congruence(back, precision))
    return future, congruence(noise, left)


def _of_state(table: Array, state: Array) -> Array:
    """Entries of the draws' states, (..., draw, trial), of a table (state, ..., trial)."""
    index = state.reshape(1, *(1,) * (table.ndim - 2), *state.shape)
    return jnp.take_along_axis(table[..., None, :], index, axis=0)[0]


def _at(table: Array, state: Array) -> Array:
    """Entries of the draws' states, (draw, trial), of a table (state, draw, trial)."""
    return jnp.take_along_axis(table, state[None], axis=0)[0]
