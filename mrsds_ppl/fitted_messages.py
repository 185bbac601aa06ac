"""What a fit says of messages: draws of them, their sizes, which are there, and which differ between conditions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jax import random
from jaxtyping import Bool, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.calibration import Calibration
from mrsds_ppl.analysis.communication import (
    check_level,
    communication_matrix,
    interval_of,
    posterior_messages,
    state_communication,
)
from mrsds_ppl.analysis.contrast import Epochs, contrast_conditions, contrast_epochs, trial_norms
from mrsds_ppl.analysis.edges import check_edges, evidence_lost, score_test, training_steps
from mrsds_ppl.analysis.posterior import PosteriorSet
from mrsds_ppl.analysis.weights import WeightPosterior, weight_posterior
from mrsds_ppl.data.check import known_trials
from mrsds_ppl.data.labels import Labels, labels_of
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.guides import Guide
from mrsds_ppl.models.mrsds import MRSDS

_UNITS = "latent units per bin"


@dataclass(frozen=True)
class FittedMessages:
    """A fitted program, its posterior of the trials, and what both say of messages.

    ``params`` are the values of the program's and the guide's sites; weights that have a prior stand there as their
    posterior medians. ``trials`` is the recording, ``split`` its training and test trials, ``train`` and ``test`` their
    posteriors.
    """

    model: MRSDS
    guide: Guide
    params: dict[str, Any]
    trials: Trials
    split: Split
    train: PosteriorSet
    test: PosteriorSet

    @property
    def counts(self) -> Bool[np.ndarray, " neuron"]:
        """Which neurons' signals are spike counts."""
        return self.model.networks.emissions.counts

    @property
    def program(self) -> FittedProgram:
        """What analyses take."""
        return FittedProgram(self.model, self.params, self.guide)

    @cached_property
    def weights(self) -> WeightPosterior:
        """Posterior of the weights of the messages, which takes about a quarter of the time of a fit to find."""
        steps = training_steps(self.model, self.split.train, self.train.x_draws[0], self.train.z_prob)
        x, z_prob = self.train.x_mean, self.train.z_prob
        return weight_posterior(random.key(0), self.program, self.split.train, x, z_prob, steps)

    def messages(
        self,
        trials: str | Trials = "test",
        *,
        draws: int = 50,
        state: int | None = None,
        weights: bool = True,
        seed: int = 0,
    ) -> xr.DataArray:
        """Messages along draws of the latents, (draw, trial, time, target, source, latent), in latent units a bin.

        A draw has latents, states and weights of its own.

        Args:
            trials: ``test``, ``train``, ``all``, or other trials of the same neurons.
            draws, seed: number of draws, and their seed.
            weights: draw them; otherwise they are held at their fitted values.
            state: messages of this state in every bin; by default averaged over the states of each bin.

        Raises:
            RunError, DataError: there is no such state; the trials do not fit.
        """
        key, program, chosen = self._for(trials, seed)
        known = self.weights if weights else None
        return posterior_messages(key, program, chosen, draws=draws, state=state, weights=known)

    def communication(
        self,
        labels: Labels | None = None,
        *,
        calibration: Calibration | None = None,
        edges: xr.Dataset | None = None,
        level: float = 0.9,
        draws: int = 50,
        weights: bool = True,
        seed: int = 0,
    ) -> xr.Dataset:
        """Mean norm of each message in test trials, (state, target, source), or of each condition in all trials.

        ``mean low high`` over draws that have latents, states and weights of their own. A norm is never zero; the
        ``low`` of a message that the training trials do not ask for is. Intervals are as good as the fit: they know
        its noise, not whether it makes messages smaller, which a calibration does.

        Args:
            labels: condition of each trial by its id, or one for each trial of ``latents``; adds ``condition``.
            calibration: of this fit; ``low`` and ``high`` then allow for what its procedure gets wrong, but not by
                condition.
            edges: of :meth:`edges` of this fit; ``low`` is then zero where test trials do not need the message either.
            level: probability between these.
            draws, seed: number of draws, and their seed.
            weights: draw them; otherwise they are held at their fitted values, and there are means alone.

        Raises:
            DataError: a label for a trial that does not exist, or none for one that does.
            RunError: ``level`` is not between 0 and 1.
        """
        check_level(level)
        told_by = calibration if labels is None else None
        known = self.weights if weights and told_by is None else None
        if labels is None:
            found = state_communication(random.key(seed), self.program, self.split.test, draws=draws, weights=known)
        else:
            given = labels_of(labels, self.trials.ids)
            told = self.messages("all", draws=draws, weights=weights, seed=seed)
            found = communication_matrix(told, labels=given)
        mean = found.mean("draw", skipna=False).assign_attrs(units=_UNITS)
        if not weights:
            return xr.Dataset({"mean": mean}, attrs={"units": _UNITS})
        interval = interval_of(found, level) if told_by is None else told_by.interval(mean, level)
        if edges is None:
            p_values = score_test(self.weights, self.split.train.lengths, seed=seed)
        else:
            p_values = edges["p_value"].values
        # A region's own change has no p-value.
        not_asked_for = (p_values[:-1] if labels is None else p_values[-1]) > (1 - level) / 2
        return interval.assign(low=interval["low"] * ~not_asked_for).assign_attrs(units=_UNITS)

    def contrast(
        self,
        labels: Labels | None = None,
        *,
        epochs: Epochs | None = None,
        draws: int = 20,
        level: float = 0.9,
        seed: int = 0,
    ) -> xr.Dataset:
        """Difference in the mean norm of each message between two conditions of trials, and whether it is there.

        Args:
            labels: two conditions, as in :meth:`communication`; None leaves a trial out. By default the recording's.
            epochs: or two stretches of every trial in seconds, such as ``{"delay": (0.2, 0.5), "go": (0.5, 1.0)}``.
            draws, level, seed: draws of the latents; level of the intervals; seed of all that is drawn.

        Returns:
            ``difference low high p_value q_value``; :func:`mrsds_ppl.analysis.contrast.contrast_conditions` says more.

        Raises:
            DataError: labels do not fit the trials, are not two, or are of too few trials to show any difference.
            RunError: ``level`` is not between 0 and 1.
        """
        if epochs is not None:
            return contrast_epochs(self.messages("all", draws=draws, seed=seed), epochs, level=level, seed=seed)
        given = labels_of(self.trials.labels if labels is None else labels, self.trials.ids)
        norms = trial_norms(self.messages("all", draws=draws, seed=seed))
        return contrast_conditions(norms, given, sessions=self.trials.sessions, level=level, seed=seed)

    def edges(self, trials: str | Trials = "test", *, rate: float = 0.1, seed: int = 0) -> xr.Dataset:
        """Which directed messages are there, by the training trials, and the evidence that each is worth in others.

        Args:
            trials: of which the evidence is: ``test``, or others; of trials that were fitted each message explains
                some noise.
            rate: false discovery rate at which an edge is ``present``.
            seed: of the steps on which means of messages are taken, and of the signs of the test.

        Returns:
            ``evidence error p_value q_value present``; :func:`mrsds_ppl.analysis.edges.evidence_lost` says more.

        Raises:
            DataError, RunError: there are too few trials; a region alone has no messages to ask for.
        """
        chosen, training = self._trials(trials), self.split.train
        check_edges(self.model, training)
        p_values = score_test(self.weights, training.lengths, seed=seed)
        steps = training_steps(self.model, training, self.train.x_draws[0], self.train.z_prob, seed=seed)
        return evidence_lost(self.program, chosen, steps, self.weights, p_values, rate=rate)

    def _trials(self, trials: str | Trials) -> Trials:
        refused = self.model.networks.emissions.refused
        return known_trials(trials, self.trials, self.split, refused=refused)

    def _for(self, trials: str | Trials, seed: int) -> tuple[PRNGKeyArray, FittedProgram, Trials]:
        """A key, the program with parameters that serve the trials, and these."""
        key, chosen, new = random.key(seed), self._trials(trials), isinstance(trials, Trials)
        return key, self.program.adapted(key, chosen.batch()) if new else self.program, chosen
