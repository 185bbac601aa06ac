"""Staged start of a switching model: give the dynamics networks the states of an AR-HMM of the smoothed latents.

Trained from a random start, the states may divide the plane of latents instead of the dynamics and never leave that
division. So after a short warm-up, which makes the posterior means of x smooth, an AR-HMM finds states there (in
seconds, from many starts), the dynamics and transitions are refitted to its state probabilities,

    maximise  sum_{t,k} gamma_t(k) log N(x_t; f_k(x_{t-1}, u_t), Q) + sum_{t,j,k} xi_t(j, k) log p(k | j, x_{t-1}, u_t),

and joint training goes on from there. A state that the refitted program hardly uses is given the parameters of the most
used one, a little disturbed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, PyTree
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.start.unused import revived, share_of_bins, unused_sentence
from mrsds_ppl.statespace.arhmm import fit_arhmm
from mrsds_ppl.statespace.chain import Chain, Smoothed, smooth
from mrsds_ppl.train.history import Keys
from mrsds_ppl.train.progress import Rounds, TrainingProgress
from mrsds_ppl.train.restarts import fold_each
from mrsds_ppl.train.training import Objective, RunChunk, TrainingSettings, initial_state, train

# Of the refit, by Adam.
_REFIT_STEPS, _REFIT_RATE = 300, 1e-2
_REFITTED = ("dynamics$params", "transitions$params", "initial$params")


class _Found(NamedTuple):
    """Parameters after the stage; log likelihoods of the AR-HMM's starts; use of each state.

    ``occupancy`` is the share of bins of each state under the refitted program; a state below
    :func:`~mrsds_ppl.start.unused.least_share` was revived after that. Of several restarts, everything has a
    leading axis of restarts.
    """

    params: dict[str, PyTree]
    log_likelihoods: Float[Array, "*restart start"]
    occupancy: Float[Array, "*restart state"]


@dataclass(frozen=True)
class Staged:
    """A :class:`~mrsds_ppl.start.protocol.Start`: warm-up, AR-HMM, refit, reviving.

    Args:
        objective, settings, run_chunk: of joint training, with which the warm-up begins.
        num_steps: of the warm-up.
        stacked: keys and parameters are those of several restarts, along a leading axis; one program serves all.
        constrain: from the parameters that are trained to the values of their sites.
        should_stop: asked between chunks of the warm-up; stopped, parameters stay as they were.
        say: prints a line.
        progress: whether a bar is shown.
    """

    objective: Objective
    settings: TrainingSettings
    run_chunk: RunChunk
    num_steps: int
    stacked: bool = False
    constrain: Callable[[dict[str, PyTree]], dict[str, PyTree]] = lambda params: params
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    progress: bool = True

    def __call__(
        self, key: Keys, params: dict[str, PyTree], model: MRSDS, guide: AutoGuide, data: Batch
    ) -> dict[str, PyTree]:
        warm = self._warm_up(key, params, data)
        if warm is None:
            return params

        def seek(key: Array, params: dict[str, PyTree], data: Batch) -> _Found:
            return self._seek(key, params, model, guide, data)

        with Rounds("states", None, self.say, self.progress):
            if self.stacked:
                each = jax.jit(lambda k, p, d: lax.map(lambda one: seek(one[0], one[1], d), (k, p)))
                found = jax.block_until_ready(each(fold_each(key, 2), warm, data))
            else:
                found = jax.block_until_ready(jax.jit(seek)(fold_each(key, 2), warm, data))
        many, starts = np.atleast_2d(found.occupancy), np.atleast_2d(found.log_likelihoods)
        for number, (occupancy, likelihoods) in enumerate(zip(many, starts, strict=True)):
            scores = np.sort(likelihoods)[::-1]
            whose = f"restart {number}: " if self.stacked else ""
            shares = ", ".join(f"{share:.2f}" for share in occupancy)
            self.say(
                f"states: {whose}an AR-HMM of the warm latents, best of {len(scores)} starts {scores[0]:.4f} nats a "
                f"bin (worst {scores[-1]:.4f}); share of bins {shares}"
            )
            if (sentence := unused_sentence(occupancy, revived=True)) is not None:
                self.say(f"{whose}{sentence}")
        return found.params

    def _warm_up(self, key: Keys, params: dict[str, PyTree], data: Batch) -> dict[str, PyTree] | None:
        """Parameters after it, or None where it was stopped."""
        settings = self.settings
        steps = min(-(-self.num_steps // settings.chunk_steps) * settings.chunk_steps, settings.num_steps)
        with TrainingProgress("warm-up", steps, shown=("elbo",), visible=self.progress, say=self.say) as progress:
            warm = train(
                self.objective,
                initial_state(params, fold_each(key, 1), settings, stacked=self.stacked),
                data,
                settings,
                on_chunk=lambda _, chunk: progress.update(chunk.restart(0) if self.stacked else chunk),
                should_stop=self.should_stop,
                run_chunk=self.run_chunk,
                until=steps,
            )
        return None if warm.stopped else warm.state.params

    def _seek(self, key: Array, params: dict[str, PyTree], model: MRSDS, guide: AutoGuide, data: Batch) -> _Found:
        """AR-HMM on the guide's posterior medians, a refit of the program to its states, reviving; while compiling."""
        (arhmm_key, refit_key), revive_key = random.split(key), random.fold_in(key, 2)
        x = guide.median(self.constrain(params), data)["x"]
        u = model.dynamics_inputs(data.u)
        fit = fit_arhmm(arhmm_key, x, u, data.lengths, num_states=model.num_states)
        found = self._refitted(refit_key, params, model, data, x, fit.smoothed)
        states = smooth(potentials(model.switching(model.networks_from(found), data), x)).marginals
        occupancy = share_of_bins(jnp.moveaxis(states, -1, 0), data.lengths)
        return _Found(revived(revive_key, found, occupancy), fit.log_likelihoods, occupancy)

    def _refitted(
        self, key: Array, params: dict[str, PyTree], model: MRSDS, data: Batch, x: Array, smoothed: Smoothed
    ) -> dict[str, PyTree]:
        marginals, pairwise = smoothed.marginals, smoothed.pairwise
        chosen = {name: params[name] for name in _REFITTED if name in params}
        size = min(self.settings.batch_size, x.shape[0])

        def loss(some: dict[str, PyTree], key: Array) -> Array:
            index = random.choice(key, x.shape[0], (size,), replace=False)
            batch = jax.tree.map(lambda leaf: leaf[index], data)
            networks = model.networks_from({**params, **some})
            chain = potentials(model.switching(networks, batch), x[index])
            responsibilities = Chain(marginals[0][..., index], pairwise[..., index], marginals[1:, ..., index])
            terms = jax.tree.map(lambda r, p: jnp.where(r > 1e-6, r * p, 0.0).sum(), responsibilities, chain)
            return -sum(terms) / batch.lengths.sum()

        refit = descend(key, loss, chosen, num_steps=_REFIT_STEPS, rate=_REFIT_RATE, last=0.05)
        return {**params, **refit.params}
