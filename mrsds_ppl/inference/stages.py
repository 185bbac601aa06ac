"""The stages of a fit: warm-up, a start for the states, joint training, the dynamics alone, what follows. Each resumes.

Everything random in a stage is drawn from the run's key and the step, and a checkpoint stands at the end of a chunk, so
a resumed run repeats the uninterrupted one bit for bit. Restarts go through warm-up, start and joint training side by
side; the best goes on alone.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.inference.checkpoints import Checkpoints
from mrsds_ppl.inference.filtering import smooth_anew
from mrsds_ppl.inference.history import History, Keys, TrainState
from mrsds_ppl.inference.laplace_em import start_by_smoothing
from mrsds_ppl.inference.paths import RunPaths as RunPaths
from mrsds_ppl.inference.progress import ScalarLog, TrainingProgress
from mrsds_ppl.inference.restarts import best_restart, fold_each, held_out_bounds
from mrsds_ppl.inference.smoothing import PathMoments
from mrsds_ppl.inference.switch_init import start_switching
from mrsds_ppl.inference.training import Objective, RunChunk, TrainingSettings, initial_state, make_run_chunk, train
from mrsds_ppl.inference.transition_fit import fit_transitions, has_transition_matrix, transition_matrix
from mrsds_ppl.inference.unused import unused_sentence
from mrsds_ppl.models.mrsds import MRSDS, Networks

DEFAULT_SWITCH_INIT_STEPS = 200
# In a checkpoint: what follows training has been done.
_FINISHED = "finished"
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


class _Trained(NamedTuple):
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
        entries_of: parameters of a guide without an encoder for given posteriors of the training trials; the start is
            then by smoothing, and so is the end.
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
    entries_of: Callable[[PathMoments], dict[str, Any]] | None = None
    message_sparsity: float = 0.0
    evidence_steps: int = 0
    transition_rounds: int = 0


def fit_stages(
    key: Keys,
    params: dict[str, Any],
    stages: Stages,
    settings: TrainingSettings,
    *,
    switch_init_steps: int | None,
    resume: bool,
    dynamics_only: TrainingSettings | None = None,
) -> Fit:
    """Train from ``params``, or from the latest checkpoint.

    Args:
        key: random key of all stages, or one for each restart.
        params: parameters at the start, of restarts along a leading axis.
        stages: what is trained, and what it is trained with.
        settings: of the optimiser.
        switch_init_steps: steps of the warm-up before states are sought; None for the default, 0 for no such stage.
        resume: go on from the latest checkpoint.
        dynamics_only: of the second stage, which trains the program under the guide as it is; None for no such stage.

    Raises:
        RunError: nothing to resume, or steps that stay non-finite.
    """
    paths, say, restarts = stages.paths, stages.say, stages.held_out is not None
    joint, alone = Checkpoints(paths.checkpoints), Checkpoints(paths.dynamics_checkpoints)
    # Restarts have a folder of their own: the run's holds one state, the best, once there is one.
    running = Checkpoints(paths.restart_checkpoints) if restarts else joint
    if resume and running.latest() is None and joint.latest() is None:
        raise RunError(f"{running.directory}: holds no checkpoint to resume from; leave --resume out to start anew.")
    if not resume:
        for checkpoints in (joint, alone, Checkpoints(paths.restart_checkpoints)):
            checkpoints.clear()
    start = initial_state(params, fold_each(key, 1), settings, stacked=restarts)
    if restarts and joint.latest() is not None:
        state, extra = joint.restore(None, start.restart(0))
        bounds, best = np.asarray(extra["restart_bounds"]), int(extra["restart"])
        fit = _Trained(state, History.from_dict(extra["history"]), stopped=False).fit()
        fit = fit._replace(restart_bounds=bounds, restart=best)
        say(f"resumed with restart {best}, the best of {len(bounds)}")
    else:
        trained = _joint(key, start, stages, settings, switch_init_steps, resume, running)
        fit = _choose(key, trained, stages, joint) if restarts and not trained.stopped else trained.fit()
    if dynamics_only is not None and not fit.stopped:
        fit = _dynamics(key, fit, stages, settings.num_steps, dynamics_only, alone, resume)
    return fit if fit.stopped else _finished(key, fit, stages, settings, joint if dynamics_only is None else alone)


def _joint(
    key: Keys,
    start: TrainState,
    stages: Stages,
    settings: TrainingSettings,
    switch_init_steps: int | None,
    resume: bool,
    checkpoints: Checkpoints,
) -> _Trained:
    """Warm-up, start of the states, joint training; of restarts, all of them."""
    model, should_stop = stages.model, stages.should_stop
    run_chunk = make_run_chunk(stages.objective, settings, stacked=start.skipped.ndim > 0)
    history, state = History.empty(), start
    if resume:
        state, extra = checkpoints.restore(None, start)
        history = History.from_dict(extra["history"])
        stages.say(f"resumed at step {int(state.step)} of {settings.num_steps}")
    else:
        steps = DEFAULT_SWITCH_INIT_STEPS if switch_init_steps is None else switch_init_steps
        if steps > 0 and model.options.weight_prior is None:
            if stages.entries_of is not None:
                state = _start_by_smoothing(key, state, stages, settings, stages.entries_of)
            elif model.num_states > 1:
                state = _start_states(key, state, stages, settings, run_chunk, steps)
        if not should_stop():
            checkpoints.save(0, state, {"history": history.to_dict()})
    if should_stop() and int(state.step) == 0:
        return _Trained(state, history, stopped=True)
    return _train("fit", state, history, stages, stages.objective, settings, checkpoints, run_chunk)


def _train(
    name: str,
    state: TrainState,
    history: History,
    stages: Stages,
    objective: Objective,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    run_chunk: RunChunk,
) -> _Trained:
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
    return _Trained(result.state, History.concatenate(parts), result.stopped)


def _choose(key: Keys, trained: _Trained, stages: Stages, joint: Checkpoints) -> Fit:
    """The best restart by its bound on held-out trials, saved as the run's own checkpoint."""
    assert stages.held_out is not None
    params, score_key = trained.state.params, fold_each(key, 5)[0]
    bounds = held_out_bounds(score_key, params, stages.model, stages.guide, stages.held_out, constrain=stages.constrain)
    best = best_restart(bounds)
    if not np.isfinite(bounds[best]):
        raise RunError("restarts: no restart has a finite bound on the held-out trials; try a smaller learning_rate.")
    listed = ", ".join(f"{number}: {bound:.5f}" for number, bound in enumerate(bounds))
    stages.say(
        f"restarts: bound of {len(stages.held_out.lengths)} held-out training trials, nats per observed value, "
        f"{listed}; restart {best} is kept"
    )
    one = _Trained(trained.state.restart(best), trained.history.restart(best), stopped=False)
    extra = {"history": one.history.to_dict(), "restart_bounds": bounds, "restart": best}
    joint.save(int(one.state.step), one.state, extra)
    return one.fit()._replace(restart_bounds=bounds, restart=best)


def _dynamics(
    key: Keys,
    fit: Fit,
    stages: Stages,
    steps_before: int,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    resume: bool,
) -> Fit:
    """The program alone, with the guide frozen and the schedule restarted; the regimen stands where it ended."""
    key = key if stages.held_out is None else key[fit.restart]
    trainable = {name: name.split("$")[0] in Networks._fields for name in fit.params}

    def objective(params: Any, key: Any, batch: Batch, step: Any) -> Any:
        return stages.objective(params, key, batch, step + steps_before)

    state, history = initial_state(fit.params, fold_each(key, 4), settings), fit.history
    if resume and checkpoints.latest() is not None:
        state, extra = checkpoints.restore(None, state)
        history = History.from_dict(extra["history"])
        stages.say(f"dynamics-only: resumed at step {int(state.step)} of {settings.num_steps}")
    run_chunk = make_run_chunk(objective, settings, trainable)
    done = _train("dynamics-only", state, history, stages, objective, settings, checkpoints, run_chunk)
    last = done.fit()
    return last._replace(skipped=fit.skipped + last.skipped, restart_bounds=fit.restart_bounds, restart=fit.restart)


def _finished(key: Keys, fit: Fit, stages: Stages, settings: TrainingSettings, checkpoints: Checkpoints) -> Fit:
    """Transitions with the latents summed out, and the paths of a guide without an encoder smoothed under the program.

    The last checkpoint is replaced by one that holds them.
    """
    rounds = stages.transition_rounds if has_transition_matrix(stages.model) else 0
    if rounds == 0 and stages.entries_of is None:
        return fit
    key = key if stages.held_out is None else key[fit.restart]
    state, extra = checkpoints.restore(None, initial_state(fit.params, fold_each(key, 4), settings))
    if extra.get(_FINISHED):
        return fit
    values = stages.constrain(fit.params)
    # Weights that have a prior stand at their medians, as in everything that is read off the fit.
    medians = stages.guide.median(values, stages.data)
    x, params = medians.pop("x"), fit.params
    values |= medians
    if rounds > 0:
        found = fit_transitions(values, stages.model, stages.data, x, num_rounds=rounds)
        before, after = (np.round(np.diag(transition_matrix(some)), 3) for some in (values, found))
        stages.say(f"transitions: probability of staying in a state {before}, with the latents summed out {after}")
        values, params = found, {**params, "transitions$params": found["transitions$params"]}
    if stages.entries_of is not None:
        params = {**params, **stages.entries_of(smooth_anew(values, stages.model, stages.data, x))}
    checkpoints.save(int(state.step), state._replace(params=params), {**extra, _FINISHED: True})
    return fit._replace(params=params)


def _start_by_smoothing(
    key: Keys,
    state: TrainState,
    stages: Stages,
    settings: TrainingSettings,
    entries_of: Callable[[PathMoments], dict[str, Any]],
) -> TrainState:
    """Laplace EM of program and paths; the state of joint training at its step 0."""
    found = start_by_smoothing(
        fold_each(key, 2),
        state.params,
        stages.model,
        stages.data,
        sparsity=stages.message_sparsity,
        evidence_steps=stages.evidence_steps,
        should_stop=stages.should_stop,
        say=stages.say,
    )
    stages.say(f"states: share of bins {', '.join(f'{share:.2f}' for share in np.asarray(found.occupancy))}")
    if (sentence := unused_sentence(np.asarray(found.occupancy), revived=False)) is not None:
        stages.say(sentence)
    return initial_state({**found.params, **entries_of(found.moments)}, fold_each(key, 3), settings)


def _start_states(
    key: Keys,
    state: TrainState,
    stages: Stages,
    settings: TrainingSettings,
    run_chunk: RunChunk,
    steps: int,
) -> TrainState:
    """Warm-up, then the AR-HMM and the refit; the state of joint training at its step 0."""
    stacked = state.skipped.ndim > 0
    steps = min(-(-steps // settings.chunk_steps) * settings.chunk_steps, settings.num_steps)
    with TrainingProgress("warm-up", steps, shown=("elbo",)) as progress:
        warm = train(
            stages.objective,
            state,
            stages.data,
            settings,
            on_chunk=lambda _, chunk: progress.update(chunk.restart(0) if stacked else chunk),
            should_stop=stages.should_stop,
            run_chunk=run_chunk,
            until=steps,
        )
    if warm.stopped:
        return state
    found = start_switching(
        fold_each(key, 2),
        warm.state.params,
        stages.model,
        stages.guide,
        stages.data,
        batch_size=settings.batch_size,
        constrain=stages.constrain,
        stacked=stacked,
    )
    many, starts = np.atleast_2d(found.occupancy), np.atleast_2d(found.log_likelihoods)
    for number, (occupancy, likelihoods) in enumerate(zip(many, starts, strict=True)):
        scores = np.sort(likelihoods)[::-1]
        whose = f"restart {number}: " if stacked else ""
        stages.say(
            f"states: {whose}an AR-HMM of the warm latents, best of {len(scores)} starts {scores[0]:.4f} nats a bin "
            f"(worst {scores[-1]:.4f}); share of bins {', '.join(f'{share:.2f}' for share in occupancy)}"
        )
        if (sentence := unused_sentence(occupancy, revived=True)) is not None:
            stages.say(f"{whose}{sentence}" if stacked else sentence)
    return initial_state(found.params, fold_each(key, 3), settings, stacked=stacked)
