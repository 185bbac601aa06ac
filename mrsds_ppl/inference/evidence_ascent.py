"""The program climbs the evidence: gradient steps on log p(y) of each trial, states and paths summed out.

    theta  <-  theta + Adam( d/dtheta log p(y | theta) ),      log p(y) = log sum_z int p(y, x, z) dx

with the program linearised around each trial's smoothed path, and the sum over the likeliest hypotheses about the
states; see :mod:`mrsds_ppl.inference.hypotheses`. Where what a region tells itself and what others tell it look alike,
smoothed paths mostly repeat the dynamics they were smoothed with, and networks fitted to them hardly move; the evidence
has a slope there, and no state need be decided for it. Q stays, as steps that are still noisy would raise it. What
is returned is the average over the second half of the steps: Polyak and Juditsky (1992).
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.inference.hypotheses import likeliest
from mrsds_ppl.inference.path_refit import NETWORK_SITES, weigh
from mrsds_ppl.inference.smoothing import linearised, smooth_path, valid_bins
from mrsds_ppl.inference.sparsity import message_sizes
from mrsds_ppl.models.mrsds import MRSDS

_TRIALS, _RATE, _KEPT = 24, 5e-3, 3


class Climbed(NamedTuple):
    """Parameters, the path that each trial is linearised around, its states, and the evidence of each step.

    ``evidence`` is that of the step's trials, in nats a bin, less the penalty on messages.
    """

    params: dict[str, Any]
    mean: Float[Array, "trial bin latent"]
    states: Float[Array, "trial bin state"]
    evidence: Float[Array, " step"]


@partial(jax.jit, static_argnames=("model", "num_steps", "sparsity"))
def climb_evidence(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    data: Batch,
    mean: Float[Array, "trial bin latent"],
    states: Float[Array, "trial bin state"],
    *,
    num_steps: int,
    sparsity: float = 0.0,
) -> Climbed:
    """Networks of dynamics and transitions by Adam on the evidence of some trials a step, smoothed anew; Q stays.

    Args:
        key: random key.
        params: values of the program's sites.
        model: the program.
        data: the trials, on the device.
        mean: paths to start from.
        states: their states, one-hot.
        num_steps: steps.
        sparsity: weight of the penalty on messages between regions, in nats a bin.
    """
    chosen = {name: params[name] for name in NETWORK_SITES if name in params}
    moves = jax.tree.map(eqx.is_inexact_array, chosen)
    moves["dynamics$params"] = eqx.tree_at(lambda part: part.noise, moves["dynamics$params"], replace=False)
    free, fixed = eqx.partition(chosen, moves)
    size = min(_TRIALS, data.lengths.shape[0])
    # A step whose gradient is not finite changes nothing.
    optimizer = optax.apply_if_finite(optax.adam(optax.cosine_decay_schedule(_RATE, num_steps, 0.05)), num_steps)

    def with_free(free: Any) -> dict[str, Any]:
        return {**params, **eqx.combine(free, fixed)}

    def loss(free: Any, batch: Batch, x: Array) -> tuple[Array, Array]:
        now = with_free(free)
        weighed = weigh(now, model, batch, x, num_kept=_KEPT)
        aim = weighed.log_evidence.sum() / batch.lengths.sum()
        if sparsity > 0:
            shares = jnp.where(valid_bins(batch)[:, 1:, None], weighed.probabilities[:, 1:], 0.0)
            before = x[:, :-1].reshape(-1, x.shape[-1])
            u = model.dynamics_inputs(batch.u)[:, 1:].reshape(len(before), -1)
            shares = lax.stop_gradient(shares).reshape(len(before), -1)
            aim = aim - sparsity * message_sizes(model.networks_from(now).dynamics, before, u, shares).sum()
        return -aim, weighed.probabilities

    def step(carry: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
        (free, average, state, mean, states), (key, number) = carry, now
        index = random.choice(key, data.lengths.shape[0], (size,), replace=False)
        batch, x, z = jax.tree.map(lambda leaf: leaf[index], (data, mean, states))
        networks = model.networks_from(with_free(free))
        around = linearised(networks, batch, x, model.dynamics_inputs(batch.u))
        x = lax.stop_gradient(smooth_path(networks, batch, *around, z).mean)
        (lost, probabilities), gradient = jax.value_and_grad(loss, has_aux=True)(free, batch, x)
        updates, state = optimizer.update(gradient, state, free)
        free = optax.apply_updates(free, updates)
        share = 1.0 / jnp.maximum(number - num_steps // 2, 1.0)
        average = jax.tree.map(lambda old, new: old + share * (new - old), average, free)
        return (free, average, state, mean.at[index].set(x), states.at[index].set(likeliest(probabilities))), -lost

    numbers = jnp.arange(1, num_steps + 1, dtype=mean.dtype)
    start = (free, free, optimizer.init(free), mean, states)
    (_, average, _, mean, states), evidence = lax.scan(step, start, (random.split(key, num_steps), numbers))
    return Climbed(with_free(average), mean, states, evidence)
