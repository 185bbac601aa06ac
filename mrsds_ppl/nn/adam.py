"""A short descent by Adam on a random loss, whose rate falls by half a cosine: for parts of a fit, not for the fit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray


class Descended(NamedTuple):
    """Where a descent ends, and the loss before each step."""

    params: Any
    losses: Float[Array, " step"]


def descend(
    key: PRNGKeyArray,
    loss: Callable[[Any, PRNGKeyArray], Float[Array, ""]],
    start: Any,
    *,
    num_steps: int,
    rate: float,
    last: float,
) -> Descended:
    """``num_steps`` steps of Adam, to be called while compiling.

    Args:
        key: random key; each step has one of its own.
        loss: of parameters and the step's key.
        start: parameters, a tree of arrays.
        num_steps: steps.
        rate: learning rate of the first step.
        last: share of it that the last step has.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps, last))

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = lax.scan(step, (start, optimizer.init(start)), random.split(key, num_steps))
    return Descended(params, losses)
