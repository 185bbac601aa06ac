"""The starts of joint training: Laplace EM of program and paths, or a warm-up and the states of an AR-HMM."""

import numpy as np

from mrsds_ppl.start.guide_start import bring_guide
from mrsds_ppl.start.laplace_em import start_by_smoothing
from mrsds_ppl.start.staged import start_switching
from mrsds_ppl.start.unused import unused_sentence
from mrsds_ppl.train.history import Keys, TrainState
from mrsds_ppl.train.progress import TrainingProgress
from mrsds_ppl.train.restarts import fold_each
from mrsds_ppl.train.stage import Stages
from mrsds_ppl.train.training import RunChunk, TrainingSettings, initial_state, train


def begin_by_smoothing(
    key: Keys,
    state: TrainState,
    stages: Stages,
    settings: TrainingSettings,
    steps: int,
) -> TrainState:
    """Laplace EM of program and paths, which the guide follows; the state of joint training at its step 0."""
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
    if stages.entries_of is not None:
        params = {**found.params, **stages.entries_of(found.moments)}
    else:
        params = bring_guide(
            fold_each(key, 6),
            found.params,
            stages.objective,
            stages.data,
            settings,
            num_steps=steps,
            should_stop=stages.should_stop,
        )
    return initial_state(params, fold_each(key, 3), settings)


def begin_by_states(
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
