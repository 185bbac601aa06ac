"""The stages of a fit: a start, joint training, the dynamics alone, what follows. Each resumes.

Everything random in a stage is drawn from the run's key and the step, and a checkpoint stands at the end of a chunk, so
a resumed run repeats the uninterrupted one bit for bit. Restarts go through start and joint training side by side;
the best goes on alone.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from mrsds_ppl.backend.sharding import at_hand, on_default_device
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.filtering import smooth_anew
from mrsds_ppl.models.mrsds import of_program
from mrsds_ppl.storage.stores import Store
from mrsds_ppl.train.history import History, Keys, TrainState
from mrsds_ppl.train.progress import Rounds
from mrsds_ppl.train.restarts import best_restart, fold_each, held_out_bounds
from mrsds_ppl.train.stage import Stages, run_stage
from mrsds_ppl.train.training import TrainingSettings, TrainResult, initial_state, make_run_chunk
from mrsds_ppl.train.transition_fit import fit_transitions

# In a checkpoint: what follows training has been done.
_FINISHED = "finished"


def fit_stages(
    key: Keys,
    params: dict[str, Any],
    stages: Stages,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    dynamics_only: TrainingSettings | None = None,
) -> TrainResult:
    """Train from ``params``, or from the latest checkpoint.

    Args:
        key: random key of all stages, or one for each restart.
        params: parameters at the start, of restarts along a leading axis.
        stages: what is trained, and what it is trained with.
        settings: of the optimiser.
        resume: go on from the latest checkpoint; without any, from the beginning.
        dynamics_only: of the second stage, which trains the program under the guide as it is; None for no such stage.

    Raises:
        RunError: steps that stay non-finite.
    """
    restarts = stages.held_out is not None
    joint, alone = stages.stores.joint, stages.stores.dynamics
    # Restarts have a store of their own: the run's holds one state, the best, once there is one.
    running = stages.stores.restarts if restarts else joint
    if resume and running.latest() is None and joint.latest() is None:
        stages.say("resumed from the beginning: the run was stopped before its first checkpoint")
        resume = False
    if not resume:
        for store in (joint, alone, stages.stores.restarts):
            store.clear()
    start = initial_state(params, fold_each(key, 1), settings, stacked=restarts)
    if restarts and joint.latest() is not None:
        state, extra = joint.restore(None, start.restart(0))
        bounds, best = np.asarray(extra["restart_bounds"]), int(extra["restart"])
        fit = TrainResult(state, History.from_dict(extra["history"]), restart_bounds=bounds, restart=best)
        stages.say(f"resumed with restart {best}, the best of {len(bounds)}")
    else:
        fit = _joint(key, start, stages, settings, running, resume)
        if restarts and not fit.stopped:
            fit = _choose(key, fit, stages)
    if dynamics_only is not None and not fit.stopped:
        fit = _dynamics(key, fit, stages, settings.num_steps, dynamics_only, resume)
    return fit if fit.stopped else _finished(key, fit, stages, settings, joint if dynamics_only is None else alone)


def _joint(
    key: Keys, start: TrainState, stages: Stages, settings: TrainingSettings, store: Store, resume: bool
) -> TrainResult:
    """Start and joint training; of restarts, all of them."""
    should_stop = stages.should_stop
    stacked = start.skipped.ndim > 0
    run_chunk = stages.run_chunk or make_run_chunk(stages.objective, settings, stacked=stacked)
    before = TrainResult(start, History.empty())
    if resume:
        state, extra = store.restore(None, start)
        before = TrainResult(state, History.from_dict(extra["history"]), factor=float(extra.get("factor", 1.0)))
        stages.say(f"resumed at step {before.step} of {settings.num_steps}")
    else:
        if stages.start is not None:
            found = stages.start(key, start.params, stages.model, stages.guide, at_hand(stages.data))
            params = on_default_device(found)
            before = before._replace(state=initial_state(params, fold_each(key, 3), settings, stacked=stacked))
        if stages.largest_rate is not None and not should_stop():
            largest = stages.largest_rate(stages.constrain(before.params))
            before = before._replace(factor=min(1.0, largest / settings.learning_rate))
            if before.factor < 1:
                stages.say(
                    f"learning rate: at most {largest:.2g}, with which a step moves latents as far as their noise"
                )
        if not should_stop():
            store.save(0, before.state, {"history": before.history.to_dict(), "factor": before.factor})
    if should_stop() and before.step == 0:
        return before._replace(stopped=True)
    return run_stage("fit", before, stages, stages.objective, settings, store, run_chunk)


def _choose(key: Keys, trained: TrainResult, stages: Stages) -> TrainResult:
    """The best restart by its bound on held-out trials, saved as the run's own checkpoint."""
    assert stages.held_out is not None
    score_key = fold_each(key, 5)[0]
    bounds = held_out_bounds(
        score_key, trained.params, stages.model, stages.guide, stages.held_out, constrain=stages.constrain
    )
    best = best_restart(bounds)
    if not np.isfinite(bounds[best]):
        raise RunError("restarts: no restart has a finite bound on the held-out trials; try a smaller learning_rate.")
    listed = ", ".join(f"{number}: {bound:.5f}" for number, bound in enumerate(bounds))
    stages.say(
        f"restarts: bound of {len(stages.held_out.lengths)} held-out training trials, nats per observed value, "
        f"{listed}; restart {best} is kept"
    )
    one = TrainResult(trained.state.restart(best), trained.history.restart(best), restart_bounds=bounds, restart=best)
    extra = {"history": one.history.to_dict(), "restart_bounds": bounds, "restart": best}
    stages.stores.joint.save(one.step, one.state, extra)
    return one


def _dynamics(
    key: Keys, fit: TrainResult, stages: Stages, steps_before: int, settings: TrainingSettings, resume: bool
) -> TrainResult:
    """The program alone, with the guide frozen and the schedule restarted; the regimen stands where it ended."""
    store = stages.stores.dynamics
    key = key if stages.held_out is None else key[fit.restart]
    trainable = {name: of_program(name) for name in fit.params}

    def objective(params: PyTree, key: PRNGKeyArray, batch: Batch, step: Array) -> tuple[Array, dict[str, Array]]:
        return stages.objective(params, key, batch, step + steps_before)

    before = TrainResult(initial_state(fit.params, fold_each(key, 4), settings), fit.history)
    if resume and store.latest() is not None:
        state, extra = store.restore(None, before.state)
        before = TrainResult(state, History.from_dict(extra["history"]))
        stages.say(f"dynamics-only: resumed at step {before.step} of {settings.num_steps}")
    run_chunk = make_run_chunk(objective, settings, trainable)
    done = run_stage("dynamics-only", before, stages, objective, settings, store, run_chunk)
    return done._replace(skipped_before=fit.skipped, restart_bounds=fit.restart_bounds, restart=fit.restart)


def _finished(key: Keys, fit: TrainResult, stages: Stages, settings: TrainingSettings, store: Store) -> TrainResult:
    """Rounds of scoring, transitions with the latents summed out, and the paths of a guide without an encoder smoothed.

    The last checkpoint is replaced by one that holds them.
    """
    rounds = stages.transition_rounds if stages.model.num_states > 1 else 0
    if rounds == 0 and stages.entries_of is None and stages.score is None:
        return fit
    key = key if stages.held_out is None else key[fit.restart]
    state, extra = store.restore(None, initial_state(fit.params, fold_each(key, 4), settings))
    if extra.get(_FINISHED):
        return fit
    values = stages.constrain(fit.params)
    # Weights that have a prior stand at their medians, as in everything that is read off the fit.
    medians = stages.guide.median(values, stages.data)
    x, params = medians.pop("x"), fit.params
    values |= medians
    if stages.score is not None:
        values, x = stages.score(fold_each(key, 7), values, x)
        if stages.should_stop():
            return fit._replace(stopped=True)
        params = {**params, "dynamics$params": values["dynamics$params"]}
    if rounds > 0:
        with Rounds("transitions", None, stages.say, stages.progress):
            found = fit_transitions(values, stages.model, stages.data, x, num_rounds=rounds)
        before, after = (np.round(np.diag(some), 3) for some in (found.before, found.after))
        stages.say(f"transitions: probability of staying in a state {before}, with the latents summed out {after}")
        values, params = found.params, {**params, "transitions$params": found.params["transitions$params"]}
    if stages.entries_of is not None:
        with Rounds("smoothing of the training trials", None, stages.say, stages.progress):
            params = {**params, **stages.entries_of(smooth_anew(values, stages.model, stages.data, x))}
    state = state._replace(params=params)
    store.save(int(state.step), state, {**extra, _FINISHED: True})
    return fit._replace(state=fit.state._replace(params=params))
