"""``Fit``: what a fit knows and can do. Results are xarray objects, with coordinates to select by."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import xarray as xr
from jax import random
from jaxtyping import PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram, labelled
from mrsds_ppl.analysis.communication import communication_matrix, posterior_messages, state_communication
from mrsds_ppl.analysis.contrast import Epochs, contrast_conditions, contrast_epochs, trial_norms
from mrsds_ppl.analysis.edges import evidence_lost, training_steps
from mrsds_ppl.analysis.forecast import Origins, forecast
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.analysis.silencing import SilencingOptions, silence
from mrsds_ppl.build import hidden_neurons
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.check import known_trials
from mrsds_ppl.data.labels import Labels, labels_of
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.guides import Guide
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.output.plots.of_fit import Plots
from mrsds_ppl.output.results import read_run, save_run, tree_of
from mrsds_ppl.output.shown import as_html, as_text
from mrsds_ppl.storage.paths import RunPaths, find_run
from mrsds_ppl.train.history import History
from mrsds_ppl.train.training import TrainResult


@dataclass(frozen=True)
class Fit:
    """A fitted program, its posterior of the trials, and what is read off both.

    ``params`` are the values of the program's and the guide's sites; weights that have a prior stand there as their
    posterior medians. ``trials`` is the recording, ``split`` its training and test trials, ``train`` and ``test`` their
    posteriors; ``scores`` those of the run, under the keys of ``NAME_latents.mat``. ``paths`` says where its files are,
    where it has any.
    """

    config: RunConfig
    model: MRSDS
    guide: Guide
    params: dict[str, Any]
    trials: Trials
    split: Split
    trained: TrainResult
    train: PosteriorSet
    test: PosteriorSet
    scores: dict[str, list[float]]
    tree: xr.DataTree | None = None
    paths: RunPaths | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def name(self) -> str:
        """Of the run; ``fit`` where it has none."""
        return "fit" if self.paths is None else self.paths.name

    @property
    def history(self) -> History:
        """Of training, step by step."""
        return self.trained.history

    @property
    def counts(self) -> bool:
        """Whether signals are spike counts."""
        return self.model.networks.emissions.counts

    @property
    def program(self) -> FittedProgram:
        """What analyses take."""
        return FittedProgram(self.model, self.params, self.guide)

    @cached_property
    def hidden_neurons(self) -> np.ndarray:
        """Indices of the neurons that are hidden from the posterior in the test of co-smoothing."""
        return hidden_neurons(self.config, self.split)

    @cached_property
    def latents(self) -> xr.DataArray:
        """Posterior means (trial, time, latent) of all trials, in latent units; NaN after the end of a trial."""
        return labelled.latents(self.model, self.trials, {"train": self.train, "test": self.test})

    @cached_property
    def states(self) -> xr.DataArray:
        """p(z_t | y) of all trials with the latents summed out, (trial, time, state); NaN after the end of a trial."""
        return labelled.states(self.trials, {"train": self.train, "test": self.test})

    @cached_property
    def posterior(self) -> xr.DataTree:
        """Draws, predictions and likelihoods in ArviZ's schema, as in ``NAME_posterior.nc``."""
        if self.tree is not None:
            return self.tree
        which = self.config.output.trials
        return tree_of(self, {"train": (self.train, self.split.train), "test": (self.test, self.split.test)}, which)

    def messages(
        self, trials: str | Trials = "test", *, draws: int = 50, state: int | None = None, seed: int = 0
    ) -> xr.DataArray:
        """Messages along draws of the latents, (draw, trial, time, target, source, latent), in latent units a bin.

        A draw has states of its own. Weights are held at their fitted values: draws differ less than they should.

        Args:
            trials: ``test``, ``train``, ``all``, or other trials of the same neurons.
            draws, seed: number of draws, and their seed.
            state: messages of this state in every bin; by default averaged over the states of each bin.

        Raises:
            RunError, DataError: there is no such state; the trials do not fit.
        """
        key, program, chosen = self._for(trials, seed)
        return posterior_messages(key, program, chosen, draws=draws, state=state)

    def communication(self, labels: Labels | None = None, *, draws: int = 20, seed: int = 0) -> xr.Dataset:
        """Mean norm of each message in test trials, (state, target, source), or of each condition in all trials.

        Args:
            labels: condition of each trial by its id, or one for each trial of ``latents``; adds ``condition``.
            draws, seed: of the latents.

        Raises:
            DataError: a label for a trial that does not exist, or none for one that does.
        """
        if labels is None:
            found = state_communication(random.key(seed), self.program, self.split.test, draws=draws)
        else:
            given = labels_of(labels, self.trials.ids)
            found = communication_matrix(self.messages("all", draws=draws, seed=seed), labels=given)
        return xr.Dataset({"mean": found.mean("draw")}, attrs={"units": "latent units per bin"})

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
        """
        if epochs is not None:
            return contrast_epochs(self.messages("all", draws=draws, seed=seed), epochs, level=level, seed=seed)
        given = labels_of(self.trials.labels if labels is None else labels, self.trials.ids)
        norms = trial_norms(self.messages("all", draws=draws, seed=seed))
        return contrast_conditions(norms, given, sessions=self.trials.sessions, level=level, seed=seed)

    def edges(self, trials: str | Trials = "test", *, rate: float = 0.1, seed: int = 0) -> xr.Dataset:
        """Which directed messages are there; see :func:`mrsds_ppl.analysis.edges.evidence_lost`.

        Args:
            trials: ``test``, or others; of trials that were fitted each message explains some noise.
            rate: false discovery rate at which an edge is ``present``.
            seed: of the steps on which the other messages settle.
        """
        steps = training_steps(self.model, self.split.train, self.train.x_draws[0], self.train.z_prob, seed=seed)
        return evidence_lost(self.program, self._trials(trials), steps, rate=rate)

    def evidence(self, trials: str | Trials = "test") -> xr.DataArray:
        """log p(y) of each trial in nats, states and latents summed out."""
        return labelled.evidence(self.program, self._trials(trials))

    def score(self, trials: str | Trials = "test", *, seed: int = 0) -> xr.Dataset:
        """R^2, squared error and bits per spike: given all data, one bin ahead, and of hidden neurons.

        Args:
            trials, seed: ``test``, ``train``, ``all``, or other trials of the same neurons; of the draws.
        """
        key, program, chosen = self._for(trials, seed)
        return labelled.scores(key, PosteriorSampler(program), chosen, self.hidden_neurons)

    def forecast(
        self, horizon: int, trials: str | Trials = "test", *, draws: int = 50, seed: int = 0, **options: Unpack[Origins]
    ) -> xr.Dataset:
        """Expected signals up to ``horizon`` bins after some bins, that see no later bin, and their R^2.

        Args:
            horizon: in bins.
            trials: ``test``, ``train``, ``all``, or other trials.
            draws, seed: paths that are averaged, and their seed.
            options: see :func:`mrsds_ppl.analysis.forecast.forecast`.
        """
        key, program, chosen = self._for(trials, seed)
        return labelled.forecasts(forecast(key, program, chosen, horizon, draws, **options), chosen)

    def silence(
        self,
        region: str | None = None,
        message: tuple[str, str] | None = None,
        trials: str | Trials = "test",
        *,
        seed: int = 0,
        **options: Unpack[SilencingOptions],
    ) -> xr.Dataset:
        """What would have followed had a region fallen silent, or one message (source, target) not arrived.

        Args:
            region, message: one of the two.
            trials, seed: ``test``, ``train``, ``all``, or other trials; of the draws.
            options: see :func:`mrsds_ppl.analysis.silencing.silence`.
        """
        key, program, chosen = self._for(trials, seed)
        found = silence(key, program, chosen, region=region, message=message, **options)
        return labelled.silenced(found, self.model, chosen)

    def flow(self, region: str | None = None, *, count: int = 17) -> xr.Dataset:
        """Where the latents of a region, or of all, go in the next bin: vector field of each state, others held.

        Args:
            region: its name; it has at most two latents, as do all together where it is left out.
            count: grid lines along each latent.
        """
        return labelled.flow(self.program, self.trials, self.latents.values, region, count)

    def infer(self, trials: Trials, *, draws: int = 100, seed: int = 0) -> xr.DataTree:
        """Posterior of new trials of the same neurons: as ``posterior``, where they stand as test trials."""
        return tree_of(self, {"test": (self.infer_set(trials, draws=draws, seed=seed), trials)}, "test")

    def infer_set(self, trials: Trials, *, draws: int = 100, seed: int = 0) -> PosteriorSet:
        """The same in plain arrays."""
        key, program, chosen = self._for(trials, seed)
        return PosteriorSampler(program).infer(key, chosen, draws=draws)

    @property
    def plot(self) -> Plots:
        """Figures, one method each: ``plot.latents()``, ``plot.states()``, ``plot.communication()`` and so on."""
        return Plots(self)

    def report(self, path: str | Path, *, labels: Labels | None = None) -> Path:
        """Write one self-contained HTML page.

        Args:
            path: where it shall appear.
            labels: conditions of the trials, as in :meth:`contrast`; those of the recording by default.
        """
        from mrsds_ppl.output.report.gather import write_report

        return write_report(self, Path(path), labels)

    def save(self, path: str | Path, *, overwrite: bool = False) -> RunPaths:
        """Write the files of a run, which :func:`mrsds_ppl.load` reads back.

        Args:
            path: folder and name, such as ``results/mouse12``.
            overwrite: replace a run of this name.

        Raises:
            RunError: a run of this name exists, or a file cannot be written.
        """
        return save_run(self, RunPaths(Path(path).parent, Path(path).name), overwrite=overwrite)

    @classmethod
    def load(cls, given: str | Path) -> "Fit":
        """The fit of a run, read back from its files.

        Args:
            given: ``DIR/NAME``, any one of the run's files, or a folder that holds exactly one run.

        Raises:
            RunError: there is no such run, or it has not ended yet, or its files are damaged.
            ConfigError, DataError: its configuration or its recording cannot be read any more.
        """
        return cls(**read_run(find_run(given)))

    def _trials(self, trials: str | Trials) -> Trials:
        return known_trials(trials, self.trials, self.split, counts=self.counts)

    def _for(self, trials: str | Trials, seed: int) -> tuple[PRNGKeyArray, FittedProgram, Trials]:
        """A key, the program with parameters that serve the trials, and these."""
        key, chosen, new = random.key(seed), self._trials(trials), isinstance(trials, Trials)
        return key, self.program.adapted(key, chosen.batch()) if new else self.program, chosen


def load(path: str | Path) -> Fit:
    """The fit of a run, read back from its files; see :meth:`Fit.load`."""
    return Fit.load(path)
