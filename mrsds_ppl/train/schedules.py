"""How the learning rate changes over the steps of a run."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import Array, Float, Int

START = 1e-5
END_FRACTION = 0.01

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""] | float]


def learning_rate_schedule(learning_rate: float, lr_warmup_steps: int, num_steps: int) -> Schedule:
    """The learning rate of each step: a linear ramp, then a cosine.

        lr(s) = 1e-5 + (learning_rate - 1e-5) s / lr_warmup_steps                          s < lr_warmup_steps
        lr(s) = learning_rate (0.01 + 0.99 (1 + cos(pi (s - w) / (num_steps - w))) / 2)    s >= w = lr_warmup_steps

    A run that is no longer than its warm-up ends on the ramp; a `learning_rate` below 1e-5 is ramped from itself.

    Args:
        learning_rate: the largest learning rate.
        lr_warmup_steps: number of steps of the ramp, 0 for none.
        num_steps: number of steps of the run, where the rate reaches 1% of `learning_rate`.
    """
    ramp = optax.linear_schedule(min(START, learning_rate), learning_rate, max(lr_warmup_steps, 1))
    decay = optax.cosine_decay_schedule(learning_rate, max(num_steps - lr_warmup_steps, 1), alpha=END_FRACTION)
    joined = optax.join_schedules([ramp, decay], [lr_warmup_steps])

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""] | float:
        with jax.numpy_dtype_promotion("standard"):  # optax divides the integer step by a float
            return joined(step)

    return schedule
