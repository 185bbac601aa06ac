"""What signals tell of the weights of dynamics that are linear in them: Gauss and Newton on one-step predictions.

    x_t = W_{z_t} phi(x_{t-1}) + noise,      y_t ~ exp(h_t^T x_t - x_t^T J_t x_t / 2)

Under given states and around a path, the filter predicts m_t, and its derivative along the weights follows the filter,

    d m_t / dW = F_t A_{t-1} d m_{t-1} / dW + d(W phi) / dW,      A_t = (1 + P_t J_t)^-1,
    I(W) = sum_t (d m_t / dW)^T (J_t^-1 + P_t)^-1 (d m_t / dW),

with P_t the covariance of the prediction. I(W) is the Fisher information of the weights with gains and covariances held
fixed: unlike the curvature of expectation-maximisation, which counts the paths as seen, it knows how little of them the
signals show. Source: Ljung (1999), prediction-error identification of state-space models.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.statespace.linear_gaussian import Latents, SharedTerms, States, TrialTerms

_TINY = 1e-6
Carry = tuple[Array, Array, Array, Array]


def weight_information(
    shared: SharedTerms,
    given: TrialTerms,
    x: Latents,
    states: States,
    features: Float[Array, "trial pair feature"],
    slopes: Float[Array, "trial pair feature latent"],
) -> Float[Array, "weight weight"]:
    """I(W); weights are those of (state, latent, feature), flattened in this order.

    Args:
        shared, given: the program linearised around a path. Padded bins have J = 0 and tell nothing.
        x: that path.
        states: one-hot states.
        features, slopes: phi and d phi / dx of each bin but the last, for the step into the next one.
    """
    noise, first, signals = shared.noise_covariance, shared.first_covariance, given.signals
    trials, _, latents = x.shape
    shape = (states.shape[-1], latents, features.shape[-1])
    size, eye = shape[0] * latents * shape[2], jnp.eye(latents, dtype=x.dtype)
    gain = jnp.einsum("btk,btkij->btij", states[:, 1:], given.steps.gain)
    offset = jnp.einsum("btk,btki->bti", states[:, 1:], given.steps.offset)

    @jax.vmap
    def update(mean: Array, spread: Array, precision: Array, shift: Array) -> tuple[Array, Array, Array]:
        shrink = jnp.linalg.inv(eye + spread @ precision)
        return shrink @ (mean + spread @ shift), shrink @ spread, shrink

    def step(carry: Carry, now: tuple[Array, ...]) -> tuple[Carry, None]:
        mean, spread, along, total = carry
        gain, offset, precision, shift, around, phi, slope, state = now
        phi = phi + jnp.einsum("bfi,bi->bf", slope, mean - around)
        mean = jnp.einsum("bij,bj->bi", gain, mean) + offset
        spread = jnp.einsum("bij,bjk,blk->bil", gain, spread, gain) + noise
        added = jnp.einsum("ij,bk,bf->bikjf", eye, state, phi).reshape(trials, latents, size)
        along = gain @ along + added
        mean, spread, shrink = update(mean, spread, precision, shift)
        known = precision @ shrink
        root = jnp.linalg.cholesky((known + jnp.swapaxes(known, 1, 2)) / 2 + _TINY * eye)
        seen = (jnp.swapaxes(root, 1, 2) @ along).reshape(trials * latents, size)
        return (mean, spread, shrink @ along, total + seen.T @ seen), None

    start = jnp.broadcast_to(first, (trials, *first.shape))
    mean, spread, _ = update(states[:, 0] @ shared.first_means, start, signals.precision[:, 0], signals.shift[:, 0])
    bins = (gain, offset, signals.precision[:, 1:], signals.shift[:, 1:], x[:, :-1], features, slopes, states[:, 1:])
    carry = (mean, spread, jnp.zeros((trials, latents, size), x.dtype), jnp.zeros((size, size), x.dtype))
    return lax.scan(step, carry, tuple(jnp.moveaxis(part, 1, 0) for part in bins))[0][3]
