"""The stages of a fit: a start, joint training, the dynamics alone, what follows. Each resumes.

Everything random in a stage is drawn from the run's key and the step, and a checkpoint stands at the end of a chunk, so
a resumed run repeats the uninterrupted one bit for bit. Restarts go through start and joint training side by side;
the best goes on alone.
"""

from typing import Any

import numpy as np

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.filtering import smooth_anew
from mrsds_ppl.models.mrsds import of_program
from mrsds_ppl.start.starts import begin_by_smoothing, begin_by_states
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.train.history import History, Keys, TrainState
from mrsds_ppl.train.restarts import best_restart, fold_each, held_out_bounds
from mrsds_ppl.train.stage import Fit, Stages, Trained, run_stage
from mrsds_ppl.train.training import TrainingSettings, initial_state, make_run_chunk
from mrsds_ppl.train.transition_fit import fit_transitions, has_transition_matrix, transition_matrix

DEFAULT_SWITCH_INIT_STEPS = 200
# In a checkpoint: what follows training has been done.
_FINISHED = "finished"


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
        switch_init_steps: steps of the warm-up before states are sought, or of the guide alone after smoothing; None
            for the default, 0 for no start.
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
        fit = Trained(state, History.from_dict(extra["history"]), stopped=False).fit()
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
) -> Trained:
    """Start and joint training; of restarts, all of them."""
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
            if stages.smooths:
                state = begin_by_smoothing(key, state, stages, settings, steps)
            elif model.num_states > 1:
                state = begin_by_states(key, state, stages, settings, run_chunk, steps)
        if not should_stop():
            checkpoints.save(0, state, {"history": history.to_dict()})
    if should_stop() and int(state.step) == 0:
        return Trained(state, history, stopped=True)
    return run_stage("fit", state, history, stages, stages.objective, settings, checkpoints, run_chunk)


def _choose(key: Keys, trained: Trained, stages: Stages, joint: Checkpoints) -> Fit:
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
    one = Trained(trained.state.restart(best), trained.history.restart(best), stopped=False)
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
    trainable = {name: of_program(name) for name in fit.params}

    def objective(params: Any, key: Any, batch: Batch, step: Any) -> Any:
        return stages.objective(params, key, batch, step + steps_before)

    state, history = initial_state(fit.params, fold_each(key, 4), settings), fit.history
    if resume and checkpoints.latest() is not None:
        state, extra = checkpoints.restore(None, state)
        history = History.from_dict(extra["history"])
        stages.say(f"dynamics-only: resumed at step {int(state.step)} of {settings.num_steps}")
    run_chunk = make_run_chunk(objective, settings, trainable)
    done = run_stage("dynamics-only", state, history, stages, objective, settings, checkpoints, run_chunk)
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
