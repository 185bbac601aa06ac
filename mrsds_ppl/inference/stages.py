"""The stages of a fit: warm-up, a start for the states, joint training; each resumable at its checkpoints.

Everything random in a stage is drawn from the run's key and the step, and a checkpoint stands at the end of a chunk, so
a resumed run repeats the uninterrupted one bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import random
from jaxtyping import PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.inference.checkpoints import Checkpoints
from mrsds_ppl.inference.progress import ScalarLog, TrainingProgress
from mrsds_ppl.inference.switch_init import start_switching
from mrsds_ppl.inference.training import (
    History,
    Objective,
    TrainingSettings,
    TrainState,
    initial_state,
    make_run_chunk,
    train,
)
from mrsds_ppl.models.mrsds import MRSDS

DEFAULT_SWITCH_INIT_STEPS = 200


@dataclass(frozen=True)
class RunPaths:
    """Names of a run's files."""

    folder: Path
    name: str

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"

    @property
    def log(self) -> Path:
        return self._file("-log.txt")

    @property
    def config(self) -> Path:
        return self._file("-config.yaml")

    @property
    def scalars(self) -> Path:
        return self._file("-logs")

    @property
    def checkpoints(self) -> Path:
        return self._file("-models")

    @property
    def mat(self) -> Path:
        return self._file("_latents.mat")

    @property
    def posterior(self) -> Path:
        return self._file("_posterior.nc")


class Fit(NamedTuple):
    """Fitted parameters, the history of joint training, steps done and skipped, and whether the run was stopped."""

    params: dict[str, Any]
    history: History
    step: int
    skipped: int
    stopped: bool


def fit_stages(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    objective: Objective,
    data: Batch,
    settings: TrainingSettings,
    *,
    switch_init_steps: int | None,
    save_steps: int,
    paths: RunPaths,
    resume: bool,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Fit:
    """Train from ``params``, or from the latest checkpoint.

    Args:
        key: random key of all stages.
        params: parameters at the start.
        model, guide, objective: what is trained.
        data: training set, on the device.
        settings: of the optimiser.
        switch_init_steps: steps of the warm-up before states are sought; None for the default, 0 for no such stage.
        save_steps: steps between checkpoints.
        paths: where checkpoints and scalars go.
        resume: go on from the latest checkpoint.
        should_stop: asked between chunks.
        say: prints a line.

    Raises:
        RunError: nothing to resume, or steps that stay non-finite.
    """
    checkpoints = Checkpoints(paths.checkpoints)
    start = initial_state(params, random.fold_in(key, 1), settings)
    run_chunk = make_run_chunk(objective, settings)
    history = History.empty()
    if resume:
        if checkpoints.latest() is None:
            raise RunError(
                f"{paths.checkpoints}: holds no checkpoint to resume from; leave --resume out to start anew."
            )
        state, extra = checkpoints.restore(None, start)
        history = History.from_dict(extra["history"])
        say(f"resumed at step {int(state.step)} of {settings.num_steps}")
    else:
        checkpoints.clear()
        state = start
        steps = DEFAULT_SWITCH_INIT_STEPS if switch_init_steps is None else switch_init_steps
        if model.num_states > 1 and steps > 0 and model.options.weight_prior is None:
            state = _start_states(
                key, state, model, guide, objective, data, settings, run_chunk, steps, should_stop, say
            )
        if not should_stop():
            checkpoints.save(0, state, {"history": history.to_dict()})
    if should_stop() and int(state.step) == 0:
        return Fit(state.params, history, 0, 0, stopped=True)

    parts = [history]
    first = int(state.step)
    with (
        TrainingProgress("fit", settings.num_steps, first, shown=("elbo", "log_px", "log_py", "log_qx")) as progress,
        ScalarLog(paths.scalars, "fit", first) as scalars,
    ):

        def on_chunk(state: TrainState, chunk: History) -> None:
            progress.update(chunk)
            scalars.write(chunk)
            parts.append(chunk)
            step = int(state.step)
            # A request to stop may come at any time; every chunk that ends after it is worth a checkpoint.
            if step // save_steps > int(chunk.step[0]) // save_steps or step == settings.num_steps or should_stop():
                checkpoints.save(step, state, {"history": History.concatenate(parts).to_dict()})

        result = train(
            objective,
            state,
            data,
            settings,
            on_chunk=on_chunk,
            should_stop=should_stop,
            last_checkpoint=lambda: None if (last := checkpoints.latest()) is None else checkpoints.path(last),
            run_chunk=run_chunk,
        )
        step = int(result.state.step)
        if result.stopped and checkpoints.latest() != step:
            checkpoints.save(step, result.state, {"history": History.concatenate(parts).to_dict()})
    skipped = int(result.state.skipped)
    if skipped:
        say(f"warning: {skipped} of {step} steps were skipped because their loss or gradient was not finite")
    return Fit(result.state.params, History.concatenate(parts), step, skipped, result.stopped)


def _start_states(
    key: PRNGKeyArray,
    state: TrainState,
    model: MRSDS,
    guide: Any,
    objective: Objective,
    data: Batch,
    settings: TrainingSettings,
    run_chunk: Any,
    steps: int,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> TrainState:
    """Warm-up, then the AR-HMM and the refit; the state of joint training at its step 0."""
    steps = min(-(-steps // settings.chunk_steps) * settings.chunk_steps, settings.num_steps)
    with TrainingProgress("warm-up", steps, shown=("elbo",)) as progress:
        warm = train(
            objective,
            state,
            data,
            settings,
            on_chunk=lambda _, chunk: progress.update(chunk),
            should_stop=should_stop,
            run_chunk=run_chunk,
            until=steps,
        )
    if warm.stopped:
        return state
    found = start_switching(
        random.fold_in(key, 2), warm.state.params, model, guide, data, batch_size=settings.batch_size
    )
    scores = np.sort(found.log_likelihoods)[::-1]
    say(
        f"states: an AR-HMM of the warm latents, best of {len(scores)} starts {scores[0]:.4f} nats a bin (worst "
        f"{scores[-1]:.4f}); share of bins {', '.join(f'{share:.2f}' for share in found.occupancy)}"
    )
    return initial_state(found.params, random.fold_in(key, 3), settings)
