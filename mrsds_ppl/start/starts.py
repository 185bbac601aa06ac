"""The start that a fit has asked for, from what its stages share, and the state of joint training at its step 0."""

from mrsds_ppl.start.laplace_em import LaplaceEM
from mrsds_ppl.start.protocol import Start
from mrsds_ppl.start.smoothing_start import GuideTraining, SmoothingStart
from mrsds_ppl.start.staged import Staged
from mrsds_ppl.train.history import Keys, TrainState
from mrsds_ppl.train.restarts import fold_each
from mrsds_ppl.train.stage import Stages
from mrsds_ppl.train.training import RunChunk, TrainingSettings, initial_state


def begin_by_smoothing(
    key: Keys, state: TrainState, stages: Stages, settings: TrainingSettings, steps: int
) -> TrainState:
    """By Laplace EM; ``steps`` are those of a guide with an encoder, trained alone."""
    laplace_em = LaplaceEM(
        sparsity=stages.message_sparsity,
        evidence_steps=stages.evidence_steps,
        should_stop=stages.should_stop,
        say=stages.say,
    )
    training = GuideTraining(stages.objective, settings, steps, stages.should_stop)
    start = SmoothingStart(laplace_em, None if stages.entries_of is not None else training)
    return _begun(start, key, state, stages, settings)


def begin_by_states(
    key: Keys, state: TrainState, stages: Stages, settings: TrainingSettings, run_chunk: RunChunk, steps: int
) -> TrainState:
    """By a warm-up of ``steps`` and the states of an AR-HMM."""
    start = Staged(
        stages.objective,
        settings,
        run_chunk,
        steps,
        stacked=state.skipped.ndim > 0,
        constrain=stages.constrain,
        should_stop=stages.should_stop,
        say=stages.say,
    )
    return _begun(start, key, state, stages, settings)


def _begun(start: Start, key: Keys, state: TrainState, stages: Stages, settings: TrainingSettings) -> TrainState:
    params = start(key, state.params, stages.model, stages.guide, stages.data)
    return initial_state(params, fold_each(key, 3), settings, stacked=state.skipped.ndim > 0)
