"""Overshooting: how well the dynamics predict signals and latents several bins ahead of the posterior path.

From the path x and the smoothed states of horizon 0, with g^0_t(k) = p(z_t = k | x) and xhat^0_t = x_t,

    g^h_t(k) = sum_j g^{h-1}_{t-1}(j) p(z_t = k | z_{t-1} = j, xhat^{h-1}_{t-1}, u_t)
    xhat^h_t = sum_k g^h_t(k) f_k(xhat^{h-1}_{t-1}, u_t)
    S_h = log p(x_1) + sum_{t>1} log sum_k g^h_t(k) N(x_t; f_k(xhat^{h-1}_{t-1}, u_t), Q) + sum_t log p(y_t | xhat^h_t).

The first bin has no prediction and keeps x_1, so bins t <= h are predicted from it over t - 1 bins: every S_h scores
every bin. S_0 is log p(x, y).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.ppl.markov import Switching, potentials
from mrsds_ppl.statespace.chain import Chain, smooth


def horizon_scores(
    networks: Networks,
    switching: Switching,
    batch: Batch,
    x: Float[Array, "trial bin latent"],
    chain: Chain,
    *,
    num_horizons: int,
) -> Float[Array, "horizon trial"]:
    """S_1 ... S_H of each trial, in nats.

    Args:
        networks: the program's.
        switching: the program of the batch.
        batch: the trials.
        x: paths.
        chain: log potentials of the states given x.
        num_horizons: H; 0 gives no rows.
    """
    if num_horizons == 0:
        return jnp.zeros((0, x.shape[0]), x.dtype)
    valid = jnp.arange(x.shape[1]) < batch.lengths[:, None]
    u, emissions = batch.u[..., : networks.dynamics.num_inputs], networks.emissions.of_trials(batch.session)
    first = jax.nn.logsumexp(chain.initial, axis=0)
    states = jnp.transpose(smooth(chain).marginals, (1, 2, 0))

    def ahead(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        states, path = carry
        # Transitions depend on the bin before alone; the evidence, which is not used, costs nothing once compiled.
        moves = jnp.exp(potentials(switching, path).transition)
        later = jnp.einsum("jbt,tjkb->kbt", states[..., :-1], moves)
        means = networks.dynamics.means(path[:, :-1], u[:, 1:])
        densities = networks.dynamics.noise.around(means).log_prob(x[:, 1:])
        mixed = jax.nn.logsumexp(densities, b=later, axis=0)
        score = first + jnp.where(valid[:, 1:], mixed, 0.0).sum(-1)
        # Padded bins stand still, so that nothing grows there.
        moved = jnp.where(valid[:, 1:, None], jnp.einsum("kbt,kbtd->btd", later, means), 0.0)
        path = jnp.concatenate([path[:, :1], moved], axis=1)
        states = jnp.concatenate([states[..., :1], later], axis=-1)
        return (states, path), score + emissions.law(path, batch.observed).log_prob(batch.y)

    _, scores = lax.scan(ahead, (states, x), None, length=num_horizons)
    return scores
