"""A guide with an encoder, brought to the program that smoothing has found.

The guide alone climbs the bound, n steps each, with the Cholesky factor of Q 8, then 4 times the fitted one.

Under the fitted Q what an untrained encoder says is next to impossible, and its paths stay at a fixed point of the
dynamics. An encoder's posterior is wider than the smoothed one, and the Q that suits it is larger: joint training
begins with the last of these factors and finds its own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jax import random
from jaxtyping import PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import of_program
from mrsds_ppl.start.path_refit import scaled_noise
from mrsds_ppl.train.history import History, TrainState
from mrsds_ppl.train.progress import TrainingProgress
from mrsds_ppl.train.training import Objective, TrainingSettings, initial_state, make_run_chunk, train

_FACTORS, _RATE = (8.0, 4.0), 1e-2


def bring_guide(
    key: PRNGKeyArray,
    params: dict[str, Any],
    objective: Objective,
    data: Batch,
    settings: TrainingSettings,
    *,
    num_steps: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Parameters of guide and program to begin joint training with.

    Args:
        key: random key.
        params: those of the program as smoothing found it, and of the guide at its start.
        objective: of joint training.
        data: training trials.
        settings: of joint training, all but its steps and their sizes.
        num_steps: steps at each scale of the noise.
        should_stop: asked between chunks; the parameters are then those so far.
    """
    alone = replace(
        settings,
        num_steps=num_steps,
        learning_rate=_RATE,
        lr_warmup_steps=num_steps // 10,
        chunk_steps=min(settings.chunk_steps, num_steps),
    )
    trainable = {name: not of_program(name) for name in params}
    run_chunk, fitted = make_run_chunk(objective, alone, trainable), params["dynamics$params"]
    for number, factor in enumerate(_FACTORS):
        loosened = scaled_noise({**params, "dynamics$params": fitted}, factor)
        state = initial_state(loosened, random.fold_in(key, number), alone)
        with TrainingProgress(f"guide, noise x {factor:g}", num_steps, shown=("elbo",)) as progress:
            result = train(
                objective,
                state,
                data,
                alone,
                on_chunk=_shown_by(progress),
                should_stop=should_stop,
                run_chunk=run_chunk,
            )
        params = result.state.params
        if result.stopped:
            break
    # A Q that is not trained could not find back to what was asked for.
    return params if fitted.noise.trainable else {**params, "dynamics$params": fitted}


def _shown_by(progress: TrainingProgress) -> Callable[[TrainState, History], None]:
    return lambda _, chunk: progress.update(chunk)
