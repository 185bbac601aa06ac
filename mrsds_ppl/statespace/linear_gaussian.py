"""A switching program that is linear and Gaussian given its states, as arrays: what smoother and filter take.

    z_1 ~ Cat(pi),  p(z_t = to | z_{t-1} = from)
    x_1 | z_1 = k ~ N(mu_k, S_0),       x_t | z_t = k, x_{t-1} ~ N(F_tk x_{t-1} + b_tk, Q)
    log p(y_t | x_t) = c_t + h_t^T x_t - x_t^T J_t x_t / 2

:mod:`mrsds_ppl.models.linearised` makes one of any program, around a path of each trial.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

# Paths of trials, or their means; what each bin has of each state: a probability, or one for the likeliest; inputs.
Latents = Float[Array, "trial bin latent"]
States = Float[Array, "trial bin state"]
Inputs = Float[Array, "trial bin input"]
Lengths = Int[Array, " trial"]


class SharedTerms(NamedTuple):
    """What is alike in all trials and bins: log pi, mu_k, S_0 and Q."""

    first_log_prob: Float[Array, " state"]
    first_means: Float[Array, "state latent"]
    first_covariance: Float[Array, "latent latent"]
    noise_covariance: Float[Array, "latent latent"]


class LinearSteps(NamedTuple):
    """F_tk and b_tk of the step into bins 2 ... T, for every state."""

    gain: Float[Array, "trial pair state latent latent"]
    offset: Float[Array, "trial pair state latent"]


class SignalTerms(NamedTuple):
    """J_t and h_t: what the signals of a bin say about its latents; c_t summed over the bins of a trial."""

    precision: Float[Array, "trial bin latent latent"]
    shift: Float[Array, "trial bin latent"]
    constant: Float[Array, " trial"]


class TrialTerms(NamedTuple):
    """What each trial has of its own; ``log_transition`` is log p(z_t = to | z_{t-1} = from)."""

    steps: LinearSteps
    signals: SignalTerms
    log_transition: Float[Array, "trial pair from to"]
    lengths: Lengths


def linearise(
    means: Callable[[Array, Array], Array], x: Float[Array, "trial bin latent"], u: Float[Array, "trial bin input"]
) -> LinearSteps:
    """Dynamics to first order around a path, f_k(x, u) ~ F_tk x + b_tk.

    Args:
        means: f of rows of latents and inputs, (state, row, latent).
        x: the path.
        u: inputs that the dynamics read; width 0 for none.
    """
    trials, bins, latents = x.shape
    before, inputs = x[:, :-1].reshape(-1, latents), u[:, 1:].reshape(trials * (bins - 1), u.shape[-1])
    values, along = jax.linearize(lambda rows: means(rows, inputs), before)
    columns = lax.map(lambda axis: along(jnp.broadcast_to(axis, before.shape)), jnp.eye(latents, dtype=x.dtype))
    gain = jnp.moveaxis(columns, 0, -1)
    offset = values - jnp.einsum("krij,rj->kri", gain, before)
    shape = (trials, bins - 1, values.shape[0])
    return LinearSteps(
        jnp.moveaxis(gain, 0, 1).reshape(*shape, latents, latents), jnp.moveaxis(offset, 0, 1).reshape(*shape, latents)
    )


def valid_bins(lengths: Lengths, num_bins: int) -> Bool[Array, "trial bin"]:
    """True in the bins of a trial."""
    return jnp.arange(num_bins) < lengths[:, None]
