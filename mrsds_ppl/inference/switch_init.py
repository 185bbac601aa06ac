"""Staged start of a switching model: give the dynamics networks the states of an AR-HMM of the smoothed latents.

Trained from a random start, the states may divide the plane of latents instead of the dynamics and never leave that
division. So after a short warm-up, which makes the posterior means of x smooth, an AR-HMM finds states there (in
seconds, from many starts), the dynamics and transitions are refitted to its state probabilities,

    maximise  sum_{t,k} gamma_t(k) log N(x_t; f_k(x_{t-1}, u_t), Q) + sum_{t,j,k} xi_t(j, k) log p(k | j, x_{t-1}, u_t),

and joint training goes on from there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.inference.arhmm import fit_arhmm
from mrsds_ppl.inference.chain import Chain
from mrsds_ppl.inference.markov import potentials
from mrsds_ppl.models.mrsds import MRSDS


class SwitchInit(NamedTuple):
    """Parameters after the stage; log likelihoods of the AR-HMM's starts; the refit's loss; use of each state."""

    params: dict[str, Any]
    log_likelihoods: Float[np.ndarray, " start"]
    refit_loss: float
    occupancy: Float[np.ndarray, " state"]


def start_switching(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    data: Batch,
    *,
    num_refit_steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
) -> SwitchInit:
    """AR-HMM on the guide's posterior means of the training set, then a refit of the dynamics to its states.

    Args:
        key: random key.
        params: parameters after the warm-up.
        model, guide: the program and its guide.
        data: training set, on the device.
        num_refit_steps, batch_size, learning_rate: of the refit, by Adam.
    """
    arhmm_key, refit_key = random.split(key)
    x = jax.jit(lambda p, d: guide.median(p, d)["x"])(params, data)
    u = data.u if model.options.ux else data.u[..., :0]
    fit = jax.jit(fit_arhmm, static_argnames="num_states")(arhmm_key, x, u, data.lengths, num_states=model.num_states)
    named = ("dynamics$params", "transitions$params", "initial$params")
    chosen = {name: params[name] for name in named if name in params}
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_refit_steps, 0.05))
    marginals, pairwise = fit.smoothed.marginals, fit.smoothed.pairwise
    size = min(batch_size, x.shape[0])

    def loss(some: dict[str, Any], index: Array) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[index], data)
        networks = model.networks_from({**params, **some})
        chain = potentials(model.switching(networks, batch), x[index])
        responsibilities = Chain(marginals[0][..., index], pairwise[..., index], marginals[1:, ..., index])
        terms = jax.tree.map(lambda r, p: jnp.where(r > 1e-6, r * p, 0.0).sum(), responsibilities, chain)
        return -sum(terms) / batch.lengths.sum()

    @jax.jit
    def refit(some: dict[str, Any], key: Array) -> tuple[dict[str, Any], Array]:
        def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Array]:
            some, state = carry
            index = random.choice(key, x.shape[0], (size,), replace=False)
            value, gradient = jax.value_and_grad(loss)(some, index)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(some, updates), state), value

        (some, _), losses = lax.scan(step, (some, optimizer.init(some)), random.split(key, num_refit_steps))
        return some, losses[-20:].mean()

    some, last = refit(chosen, refit_key)
    valid = jnp.arange(x.shape[1])[:, None] < data.lengths
    occupancy = (marginals * valid[:, None]).sum((0, 2)) / valid.sum()
    return SwitchInit({**params, **some}, np.asarray(fit.log_likelihoods), float(last), np.asarray(occupancy))
