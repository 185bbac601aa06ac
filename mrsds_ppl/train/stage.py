"""What the stages of a fit share, and how one of them runs: progress, scalars, checkpoints."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.statespace.smoothing import PathMoments
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.train.history import History, TrainState
from mrsds_ppl.train.progress import ScalarLog, TrainingProgress
from mrsds_ppl.train.training import Objective, RunChunk, TrainingSettings, train

_SHOWN = ("elbo", "log_px", "log_py", "log_qx")


class Fit(NamedTuple):
    """Fitted parameters, the history of training, steps done and skipped, and whether the run was stopped.

    Where there were restarts, ``restart_bounds`` holds their bounds on held-out trials, and ``restart`` the best's
    number.
    """

    params: dict[str, Any]
    history: History
    step: int
    skipped: int
    stopped: bool
    restart_bounds: Float[np.ndarray, " restart"] | None = None
    restart: int = 0


class Trained(NamedTuple):
    """How a stage ended; ``history`` holds what went before as well."""

    state: TrainState
    history: History
    stopped: bool

    def fit(self) -> Fit:
        return Fit(self.state.params, self.history, int(self.state.step), int(np.sum(self.state.skipped)), self.stopped)


@dataclass(frozen=True)
class Stages:
    """What all stages of a fit share.

    Args:
        model, guide, objective: what is trained.
        data: training set, on the device.
        paths: where checkpoints and scalars go.
        save_steps: steps between checkpoints.
        should_stop: asked between chunks.
        say: prints a line.
        constrain: from the parameters that are trained to the values of their sites.
        held_out: trials that choose among restarts; None where there are none, and keys and parameters are of one.
        smooths: whether the start is by smoothing.
        entries_of: parameters of a guide without an encoder for given posteriors of the training trials, which start
            and end by smoothing; None for a guide that has to be trained.
        message_sparsity: weight of the penalty on messages between regions, for that start.
        evidence_steps: Gauss-Newton steps on the evidence in it.
        transition_rounds: of expectation-maximisation of the transitions after all training, latents summed out.
    """

    model: MRSDS
    guide: Any
    objective: Objective
    data: Batch
    paths: RunPaths
    save_steps: int
    should_stop: Callable[[], bool]
    say: Callable[[str], None]
    constrain: Callable[[Any], Any] = lambda params: params
    held_out: Batch | None = None
    smooths: bool = False
    entries_of: Callable[[PathMoments], dict[str, Any]] | None = None
    message_sparsity: float = 0.0
    evidence_steps: int = 0
    transition_rounds: int = 0


def run_stage(
    name: str,
    state: TrainState,
    history: History,
    stages: Stages,
    objective: Objective,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    run_chunk: RunChunk,
) -> Trained:
    """One stage to its end, with progress, scalars and checkpoints; ``history`` is of what went before."""
    first, parts, count = int(state.step), [history], state.skipped.size
    stacked = state.skipped.ndim > 0
    names = [f"{name}-{number}" for number in range(count)] if stacked else [name]
    with TrainingProgress(name, settings.num_steps, first, shown=_SHOWN) as progress, ExitStack() as open_logs:
        scalars = [open_logs.enter_context(ScalarLog(stages.paths.scalars, each, first)) for each in names]

        def saved(state: TrainState) -> None:
            checkpoints.save(int(state.step), state, {"history": History.concatenate(parts).to_dict()})

        def on_chunk(state: TrainState, chunk: History) -> None:
            each = [chunk.restart(number) for number in range(count)] if stacked else [chunk]
            # The line on the screen is the best restart's of the moment.
            progress.update(each[int(np.argmin([np.mean(one.loss) for one in each]))])
            for log, one in zip(scalars, each, strict=True):
                log.write(one)
            parts.append(chunk)
            step = int(state.step)
            # A request to stop may come at any time; every chunk that ends after it is worth a checkpoint.
            passed = step // stages.save_steps > int(chunk.step[0]) // stages.save_steps
            if passed or step == settings.num_steps or stages.should_stop():
                saved(state)

        result = train(
            objective,
            state,
            stages.data,
            settings,
            on_chunk=on_chunk,
            should_stop=stages.should_stop,
            last_checkpoint=lambda: None if (last := checkpoints.latest()) is None else checkpoints.path(last),
            run_chunk=run_chunk,
        )
        step = int(result.state.step)
        if result.stopped and checkpoints.latest() != step:
            saved(result.state)
    for number, skipped in enumerate(np.atleast_1d(result.state.skipped)):
        if skipped:
            whose = f" of restart {number}" if stacked else ""
            stages.say(
                f"warning: {skipped} of {step} steps{whose} were skipped because their loss or gradient was not finite"
            )
    return Trained(result.state, History.concatenate(parts), result.stopped)
