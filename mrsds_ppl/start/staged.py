"""Staged start of a switching model: give the dynamics networks the states of an AR-HMM of the smoothed latents.

Trained from a random start, the states may divide the plane of latents instead of the dynamics and never leave that
division. So after a short warm-up, which makes the posterior means of x smooth, an AR-HMM finds states there (in
seconds, from many starts), the dynamics and transitions are refitted to its state probabilities,

    maximise  sum_{t,k} gamma_t(k) log N(x_t; f_k(x_{t-1}, u_t), Q) + sum_{t,j,k} xi_t(j, k) log p(k | j, x_{t-1}, u_t),

and joint training goes on from there. A state that the refitted program hardly uses is given the parameters of the most
used one, a little disturbed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.start.unused import revived, share_of_bins
from mrsds_ppl.statespace.arhmm import fit_arhmm
from mrsds_ppl.statespace.chain import Chain, smooth
from mrsds_ppl.train.history import Keys


class SwitchInit(NamedTuple):
    """Parameters after the stage; log likelihoods of the AR-HMM's starts; the refit's loss; use of each state.

    ``occupancy`` is the share of bins of each state under the refitted program; a state below
    :func:`~mrsds_ppl.start.unused.least_share` was revived after that. Of several restarts, everything has a
    leading axis of restarts.
    """

    params: dict[str, Any]
    log_likelihoods: Float[Array, "*restart start"]
    refit_loss: Float[Array, "*restart"]
    occupancy: Float[Array, "*restart state"]


def start_switching(
    key: Keys,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    data: Batch,
    *,
    num_refit_steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    constrain: Callable[[Any], Any] = lambda params: params,
    stacked: bool = False,
) -> SwitchInit:
    """AR-HMM on the guide's posterior medians of the training set, a refit of the dynamics to its states, reviving.

    Args:
        key: random key.
        params: parameters after the warm-up.
        model, guide: the program and its guide, of which ``guide.median(params, batch)["x"]`` is asked.
        data: training set, on the device.
        num_refit_steps, batch_size, learning_rate: of the refit, by Adam.
        constrain: from the parameters that are trained to the values of their sites.
        stacked: keys and parameters are those of several restarts, along a leading axis; one program serves all.
    """

    def seek(key: Array, params: dict[str, Any], data: Batch) -> SwitchInit:
        (arhmm_key, refit_key), revive_key = random.split(key), random.fold_in(key, 2)
        x = guide.median(constrain(params), data)["x"]
        u = model.dynamics_inputs(data.u)
        fit = fit_arhmm(arhmm_key, x, u, data.lengths, num_states=model.num_states)
        named = ("dynamics$params", "transitions$params", "initial$params")
        chosen = {name: params[name] for name in named if name in params}
        marginals, pairwise = fit.smoothed.marginals, fit.smoothed.pairwise
        size = min(batch_size, x.shape[0])

        def loss(some: dict[str, Any], key: Array) -> Array:
            index = random.choice(key, x.shape[0], (size,), replace=False)
            batch = jax.tree.map(lambda leaf: leaf[index], data)
            networks = model.networks_from({**params, **some})
            chain = potentials(model.switching(networks, batch), x[index])
            responsibilities = Chain(marginals[0][..., index], pairwise[..., index], marginals[1:, ..., index])
            terms = jax.tree.map(lambda r, p: jnp.where(r > 1e-6, r * p, 0.0).sum(), responsibilities, chain)
            return -sum(terms) / batch.lengths.sum()

        refit = descend(refit_key, loss, chosen, num_steps=num_refit_steps, rate=learning_rate, last=0.05)
        found = {**params, **refit.params}
        states = smooth(potentials(model.switching(model.networks_from(found), data), x)).marginals
        occupancy = share_of_bins(jnp.moveaxis(states, -1, 0), data.lengths)
        return SwitchInit(
            revived(revive_key, found, occupancy), fit.log_likelihoods, refit.losses[-20:].mean(), occupancy
        )

    if stacked:
        return jax.jit(lambda k, p, d: lax.map(lambda one: seek(one[0], one[1], d), (k, p)))(key, params, data)
    return jax.jit(seek)(key, params, data)
