"""What the stages of a fit share, and how one of them runs: progress, scalars, checkpoints."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.guides import Guide
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.statespace.linear_gaussian import Latents
from mrsds_ppl.statespace.smoothing import PathMoments
from mrsds_ppl.storage.stores import Store, Stores
from mrsds_ppl.train.history import History, Keys, TrainState
from mrsds_ppl.train.progress import ScalarLog, TrainingProgress
from mrsds_ppl.train.training import Objective, RunChunk, TrainingSettings, TrainResult, train

_SHOWN = ("elbo", "log_px", "log_py", "log_qx")


# (key, params, model, guide, data) -> params: what comes before joint training, see :mod:`mrsds_ppl.start.protocol`.
Start: TypeAlias = Callable[[Keys, dict[str, Any], MRSDS, Any, Batch], dict[str, Any]]
# (key, values of the sites, paths) -> both: what follows joint training.
Score: TypeAlias = Callable[[Array, dict[str, Any], Latents], tuple[dict[str, Any], Latents]]


@dataclass(frozen=True)
class Stages:
    """What all stages of a fit share.

    Args:
        model, guide, objective: what is trained.
        data: training set, on the device, or on the host where several devices get their shares as they train.
        stores: where states and scalars go.
        save_steps: steps between checkpoints.
        should_stop: asked between chunks.
        say: prints a line.
        progress: whether a bar is shown.
        constrain: from the parameters that are trained to the values of their sites.
        held_out: trials that choose among restarts; None where there are none, and keys and parameters are of one.
        start: what comes before joint training; None for nothing.
        entries_of: parameters of a guide without an encoder for given posteriors of the training trials, which start
            and end by smoothing; None for a guide that has to be trained.
        score: values of the sites and paths after rounds of scoring, which follow all training; None for none.
        transition_rounds: of expectation-maximisation of the transitions after all training, latents summed out.
        run_chunk: the compiled loop of joint training, where the start has it too.
        follow_bound: whether a stage ends when the bound no longer rises.
        largest_rate: of values of the sites after the start, where joint training asks it for its learning rate.
    """

    model: MRSDS
    guide: Guide
    objective: Objective
    data: Batch
    stores: Stores
    save_steps: int
    should_stop: Callable[[], bool]
    say: Callable[[str], None]
    progress: bool = True
    constrain: Callable[[Any], Any] = lambda params: params
    held_out: Batch | None = None
    start: Start | None = None
    entries_of: Callable[[PathMoments], dict[str, Any]] | None = None
    score: Score | None = None
    transition_rounds: int = 0
    run_chunk: RunChunk | None = None
    follow_bound: bool = False
    largest_rate: Callable[[dict[str, Any]], float] | None = None


def run_stage(
    name: str,
    before: TrainResult,
    stages: Stages,
    objective: Objective,
    settings: TrainingSettings,
    store: Store,
    run_chunk: RunChunk,
) -> TrainResult:
    """One stage to its end, with progress, scalars and checkpoints.

    Args:
        name: of the stage, as the user reads it.
        before: the state to start from, and the history of what went before, which the result's goes on with.
        stages: what all stages share.
        objective, settings: of this stage.
        store: its checkpoints.
        run_chunk: its compiled loop.
    """
    state = before.state
    if state.step < settings.num_steps:
        stages.say(
            f"{name}: elbo is the bound on log p(y) in nats per observed value, higher is better; log_px, log_py and "
            "log_qx are its parts, in nats of all training trials"
        )
    first, parts, count = int(state.step), [before.history], state.skipped.size
    stacked = state.skipped.ndim > 0
    names = [f"{name}-{number}" for number in range(count)] if stacked else [name]
    with (
        TrainingProgress(
            name, settings.num_steps, first, shown=_SHOWN, visible=stages.progress, say=stages.say
        ) as progress,
        ExitStack() as open_logs,
    ):
        folder = stages.stores.scalars
        scalars = [open_logs.enter_context(ScalarLog(folder, each, first)) for each in names if folder is not None]

        def saved(state: TrainState) -> None:
            extra = {"history": History.concatenate(parts).to_dict(), "factor": before.factor}
            store.save(int(state.step), state, extra)

        def on_chunk(state: TrainState, chunk: History) -> None:
            each = [chunk.restart(number) for number in range(count)] if stacked else [chunk]
            # The line on the screen is the best restart's of the moment.
            progress.update(each[int(np.argmin([np.mean(one.loss) for one in each]))])
            for log, one in zip(scalars, each, strict=False):
                log.write(one)
            parts.append(chunk)
            step = int(state.step)
            # A request to stop may come at any time; every chunk that ends after it is worth a checkpoint.
            passed = step // stages.save_steps > int(chunk.step[0]) // stages.save_steps
            if passed or stages.should_stop():
                saved(state)

        result = train(
            objective,
            state,
            stages.data,
            settings,
            on_chunk=on_chunk,
            should_stop=stages.should_stop,
            last_checkpoint=lambda: None if (last := store.latest()) is None else store.where(last),
            run_chunk=run_chunk,
            before=before.history.last(first) if stages.follow_bound else None,
            factor=before.factor,
        )
        step = int(result.state.step)
        if step > first and store.latest() != step:
            saved(result.state)
    for number, skipped in enumerate(np.atleast_1d(result.state.skipped)):
        if skipped:
            whose = f" of restart {number}" if stacked else ""
            stages.say(
                f"warning: {skipped} of {step} steps{whose} were skipped because their loss or gradient was not finite"
            )
    if not result.stopped and step < settings.num_steps:
        stages.say(f"{name}: ended at step {step} of {settings.num_steps}, as the bound no longer rose")
    return result._replace(history=History.concatenate(parts), factor=before.factor)
