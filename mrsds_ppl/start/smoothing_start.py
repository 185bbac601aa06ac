"""The start by smoothing: Laplace EM of program and paths, which the guide then follows.

A guide with an entry for each trial is given the paths. One with an encoder is trained alone, n steps each, with the
Cholesky factor of Q 8, then 4 times the fitted one. Under the fitted Q what an untrained encoder says is next to
impossible, and its paths stay at a fixed point of the dynamics. An encoder's posterior is wider than the smoothed one,
and the Q that suits it is larger: joint training begins with the last of these factors and finds its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from jax import random
from jaxtyping import PRNGKeyArray, PyTree
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.guides.path_guide import PathGuide
from mrsds_ppl.models.dynamics import with_scaled_noise
from mrsds_ppl.models.mrsds import MRSDS, of_program
from mrsds_ppl.start.joined_sessions import JoinedEM
from mrsds_ppl.start.laplace_em import LaplaceEM
from mrsds_ppl.start.unused import share_of_bins, unused_sentence
from mrsds_ppl.train.history import History, Keys, TrainState
from mrsds_ppl.train.progress import TrainingProgress
from mrsds_ppl.train.restarts import fold_each
from mrsds_ppl.train.training import Objective, TrainingSettings, initial_state, make_run_chunk, train

_FACTORS, _RATE = (8.0, 4.0), 1e-2
_DYNAMICS = "dynamics$params"


@dataclass(frozen=True)
class GuideTraining:
    """Training of a guide with an encoder, the program as smoothing has found it.

    Args:
        objective: of joint training.
        settings: of joint training, all but its steps and their sizes.
        num_steps: steps at each scale of the noise.
        should_stop: asked between chunks; the parameters are then those so far.
        progress: whether a bar is shown.
        say: prints a line.
    """

    objective: Objective
    settings: TrainingSettings
    num_steps: int
    should_stop: Callable[[], bool] = lambda: False
    progress: bool = True
    say: Callable[[str], None] = lambda line: None

    def __call__(self, key: PRNGKeyArray, params: dict[str, PyTree], data: Batch) -> dict[str, PyTree]:
        """Parameters of guide and program.

        Args:
            key: random key.
            params: those of the program as smoothing found it, and of the guide at its start.
            data: training trials.
        """
        alone = replace(
            self.settings,
            num_steps=self.num_steps,
            learning_rate=_RATE,
            lr_warmup_steps=self.num_steps // 10,
            chunk_steps=min(self.settings.chunk_steps, self.num_steps),
        )
        trainable = {name: not of_program(name) for name in params}
        run_chunk, fitted = make_run_chunk(self.objective, alone, trainable), params[_DYNAMICS]
        for number, factor in enumerate(_FACTORS):
            loosened = {**params, _DYNAMICS: with_scaled_noise(fitted, factor)}
            state = initial_state(loosened, random.fold_in(key, number), alone)
            name = f"guide, noise x {factor:g}"
            with TrainingProgress(
                name, self.num_steps, shown=("elbo",), visible=self.progress, say=self.say
            ) as progress:
                result = train(
                    self.objective,
                    state,
                    data,
                    alone,
                    on_chunk=_shown_by(progress),
                    should_stop=self.should_stop,
                    run_chunk=run_chunk,
                )
            params = result.state.params
            if result.stopped:
                break
        # A Q that is not trained could not find back to what was asked for.
        return params if fitted.noise.trainable else {**params, _DYNAMICS: fitted}


@dataclass(frozen=True)
class SmoothingStart:
    """A :class:`~mrsds_ppl.start.protocol.Start` by Laplace EM.

    Args:
        laplace_em: which finds program and paths.
        guide_training: of a guide with an encoder; None for a guide with an entry for each trial.
        sessions: names of joined sessions, None for one recording.
    """

    laplace_em: LaplaceEM
    guide_training: GuideTraining | None = None
    sessions: Sequence[str] | None = None

    def __call__(
        self, key: Keys, params: dict[str, PyTree], model: MRSDS, guide: AutoGuide, data: Batch
    ) -> dict[str, PyTree]:
        affine = model.networks.emissions.readout.hidden is None
        names = self.sessions or ()
        em = JoinedEM(self.laplace_em, names) if affine and len(names) > 1 else self.laplace_em
        found = em(fold_each(key, 2), params, model, data)
        shares = np.asarray(share_of_bins(found.paths.states, data.lengths))
        self.laplace_em.say(f"states: share of bins {', '.join(f'{share:.2f}' for share in shares)}")
        if (sentence := unused_sentence(shares, revived=False)) is not None:
            self.laplace_em.say(sentence)
        if self.guide_training is None:
            return {**found.params, **cast(PathGuide, guide).at(found.paths.moments)}
        return self.guide_training(fold_each(key, 6), found.params, data)


def _shown_by(progress: TrainingProgress) -> Callable[[TrainState, History], None]:
    return lambda _, chunk: progress.update(chunk)
