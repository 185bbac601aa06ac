"""How the learning rate changes over the steps of a run, and where the run ends.

Where the bound no longer rises, what is left of the schedule follows in a quarter of the steps so far, and training
ends: the rate has to come down for the last gain, and for that a fifth of all steps is enough.
Source: Haegele et al. (2024), Scaling laws and compute-optimal training beyond fixed training durations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mrsds_ppl.train.history import History
from mrsds_ppl.train.settings import TrainingSettings

START = 1e-5
END_FRACTION = 0.01
# Standard errors: the usual 5%, two-sided. They are read off the steps, and of fewer than so many not well known.
_RISE, _FEWEST_STEPS = 2.0, 100
_FIRST_STEPS = 20
_LAST_SHARE = 0.25
# Metric: observed values of a batch, scaled to the training set as the bound is, over those of the training set.
OBSERVED_SHARE = "observed_share"

# Between two steps as well.
Step = Int[Array, ""] | Float[Array, ""] | int
Schedule = Callable[[Step], Float[Array, ""] | float]


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

    def schedule(step: Step) -> Float[Array, ""] | float:
        with jax.numpy_dtype_promotion("standard"):  # optax divides the integer step by a float
            return joined(step)

    return schedule


class Pace(NamedTuple):
    """How the steps of a run depart from its schedule.

        lr(s) = factor scheduled(s)                                                                 s < cooling
        lr(s) = factor scheduled(cooling + (s - cooling) (num_steps - cooling) / (end - cooling))   s >= cooling

    ``end`` is the number of steps after which the run is over.
    """

    factor: Float[Array, ""] | np.float32
    cooling: Int[Array, ""] | np.int32
    end: Int[Array, ""] | np.int32

    @staticmethod
    def scheduled(num_steps: int, factor: float = 1.0) -> "Pace":
        """All steps, at a fraction of the scheduled rate."""
        return Pace(np.float32(factor), np.int32(num_steps), np.int32(num_steps))

    def rate(self, schedule: Schedule, step: Int[Array, ""], num_steps: int) -> Float[Array, ""]:
        """The learning rate of a step; to be called while compiling."""
        after = (step - self.cooling).astype(jnp.float32)
        faster = (num_steps - self.cooling) / jnp.maximum(self.end - self.cooling, 1).astype(jnp.float32)
        reached = jnp.where(step < self.cooling, step.astype(jnp.float32), self.cooling + after * faster)
        return self.factor * jnp.asarray(schedule(reached), jnp.float32)


def pace_of(history: History, settings: TrainingSettings, factor: float = 1.0) -> Pace:
    """The pace that the steps so far ask for: it ends at the first chunk with which the bound no longer rises.

    It does if the last quarter of the steps is higher than the quarter before by two standard errors, which are those
    of differences of successive steps, so that a trend has no part in them; and higher than the first 20 steps, without
    which it only makes up for what large steps have taken from a good start. Steps of the ramp do not count, and
    quarters are of 100 steps or more. A batch with more observed values than others is as high as its values are on
    average.

    Args:
        history: all steps of the stage so far; of restarts, their mean is judged.
        settings: of the stage.
        factor: of the scheduled rate.
    """
    bound = -np.asarray(history.loss, float) / np.asarray(history.metrics.get(OBSERVED_SHARE, 1.0), float)
    bound = bound.mean(1) if bound.ndim > 1 else bound
    scheduled = Pace.scheduled(settings.num_steps, factor)
    for step in range(settings.chunk_steps, min(len(bound) + 1, settings.num_steps), settings.chunk_steps):
        if not _rises(bound[:step], settings.lr_warmup_steps):
            end = min(settings.num_steps, step + max(int(_LAST_SHARE * step), 1))
            return scheduled._replace(cooling=np.int32(step), end=np.int32(end))
    return scheduled


def _rises(bound: Float[np.ndarray, " step"], lr_warmup_steps: int) -> bool:
    quarter = len(bound) // 4
    if quarter < _FEWEST_STEPS or len(bound) - 2 * quarter < lr_warmup_steps:
        return True
    # Steps that were skipped say nothing.
    windows = (bound[:_FIRST_STEPS], bound[-2 * quarter : -quarter], bound[-quarter:])
    begun, before, now = (some[np.isfinite(some)] for some in windows)
    if min(len(before), len(now)) < _FEWEST_STEPS // 2 or len(begun) == 0:
        return True
    error = np.sqrt(sum(np.mean(np.diff(some) ** 2) / 2 / len(some) for some in (before, now)))
    return bool(now.mean() - before.mean() > _RISE * error and now.mean() > np.mean(begun))
