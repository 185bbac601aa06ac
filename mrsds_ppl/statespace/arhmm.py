"""Autoregressive hidden Markov model of given paths x, by expectation-maximisation with the enumerated chain.

    z_t | z_{t-1} ~ Cat(A_{z_{t-1}}),        x_t | z_t = k, x_{t-1}, u_t ~ N(W_k [x_{t-1}; u_t; 1], diag s^2)

The noise is shared by the states, as in the model that it starts. Many random starts run side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mrsds_ppl.statespace.chain import Chain, Smoothed, hold_after, smooth

_RIDGE = 1e-3
_STARTS, _ITERATIONS = 8, 40  # of expectation-maximisation
_STAY = 0.95  # probability of keeping the state at the start, and in a prior worth a tenth of the bins
_WINDOW = 20  # bins that a random start fits its regressions to


class ARHMM(NamedTuple):
    """Parameters of one start."""

    weights: Float[Array, "state feature latent"]
    log_transition: Float[Array, "from to"]
    scale: Float[Array, " latent"]


class ARHMMFit(NamedTuple):
    """The best start: its parameters, state probabilities, and the log likelihood of every start, nats per bin."""

    model: ARHMM
    smoothed: Smoothed
    log_likelihoods: Float[Array, " start"]


def fit_arhmm(
    key: PRNGKeyArray,
    x: Float[Array, "trial bin latent"],
    u: Float[Array, "trial bin input"],
    lengths: Int[Array, " trial"],
    *,
    num_states: int,
) -> ARHMMFit:
    """The likeliest fit of eight random starts.

    Each start fits one regression per state to a short random stretch of a random trial.

    Args:
        key: random key.
        x: paths, for example posterior means of the latents.
        u: inputs; width 0 leaves them out.
        lengths: valid bins of each trial.
        num_states: K.
    """
    ones = jnp.ones((*x.shape[:2], 1), x.dtype)
    features = jnp.concatenate([x[:, :-1], u[:, 1:], ones[:, 1:]], axis=-1).swapaxes(0, 1)
    targets = x[:, 1:].swapaxes(0, 1)
    valid = (jnp.arange(1, x.shape[1])[:, None] < lengths).astype(x.dtype)
    eye = jnp.eye(num_states, dtype=x.dtype)
    sticky = eye * _STAY + (1 - eye) * (1 - _STAY) / max(num_states - 1, 1)
    pseudo_counts = 0.1 * valid.sum() / num_states * sticky

    def regressions(weights_of_bins: Array) -> tuple[Array, Array]:
        gram = jnp.einsum("tkb,tbp,tbq->kpq", weights_of_bins, features, features)
        cross = jnp.einsum("tkb,tbp,tbd->kpd", weights_of_bins, features, targets)
        fitted = jnp.linalg.solve(gram + _RIDGE * valid.sum() / num_states * jnp.eye(gram.shape[-1]), cross)
        residual = targets[:, None] - jnp.einsum("tbp,kpd->tkbd", features, fitted)
        variance = jnp.einsum("tkb,tkbd->d", weights_of_bins, residual**2) / weights_of_bins.sum()
        return fitted, jnp.sqrt(variance + 1e-6)

    def expect(model: ARHMM) -> Smoothed:
        residual = (targets[:, None] - jnp.einsum("tbp,kpd->tkbd", features, model.weights)) / model.scale
        evidence = -0.5 * (residual**2).sum(-1) - jnp.log(model.scale).sum()
        start = jnp.full((num_states, x.shape[0]), -jnp.log(num_states), x.dtype)
        moves = jnp.broadcast_to(model.log_transition[..., None], (*valid.shape[:1], *eye.shape, x.shape[0]))
        return smooth(hold_after(Chain(start, moves, evidence), lengths))

    def improve(model: ARHMM, _: None) -> tuple[ARHMM, None]:
        smoothed = expect(model)
        weights, scale = regressions(smoothed.marginals[1:] * valid[:, None])
        counts = (smoothed.pairwise * valid[:, None, None]).sum((0, 3)) + pseudo_counts
        return ARHMM(weights, jnp.log(counts / counts.sum(1, keepdims=True)), scale), None

    def begin(key: Array) -> ARHMM:
        trial_key, bin_key = random.split(key)
        trials = random.randint(trial_key, (num_states,), 0, x.shape[0])
        fractions = random.uniform(bin_key, (num_states,))
        firsts = (fractions * jnp.maximum(lengths[trials] - 1 - _WINDOW, 1)).astype(int)
        bins = jnp.arange(x.shape[1] - 1)[:, None, None]
        inside = (bins >= firsts[:, None]) & (bins < firsts[:, None] + _WINDOW)
        chosen = inside & (jnp.arange(x.shape[0]) == trials[:, None]) & (valid[:, None] > 0)
        # A trace of all bins keeps the regression of a short stretch well posed.
        weights, scale = regressions(chosen + 1e-3 * valid[:, None])
        return ARHMM(weights, jnp.log(sticky), scale)

    def one_start(key: Array) -> tuple[ARHMM, Array]:
        model, _ = lax.scan(improve, begin(key), None, length=_ITERATIONS)
        return model, expect(model).log_normalizer.sum() / valid.sum()

    models, log_likelihoods = lax.map(one_start, random.split(key, _STARTS))
    best = jnp.argmax(jnp.where(jnp.isfinite(log_likelihoods), log_likelihoods, -jnp.inf))
    model = jax.tree.map(lambda leaf: leaf[best], models)
    return ARHMMFit(model, expect(model), log_likelihoods)
