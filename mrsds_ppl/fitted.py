"""``Fit``: what a fit knows and can do. Results are xarray objects, with coordinates to select by."""

from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Unpack

import numpy as np
import xarray as xr
from jax import random

from mrsds_ppl.analysis import labelled
from mrsds_ppl.analysis.calibration import Calibration, Recovered, calibration, recovered, replicate
from mrsds_ppl.analysis.communication import region_labels
from mrsds_ppl.analysis.forecast import Origins, forecast
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.analysis.silencing import SilencingOptions, silence
from mrsds_ppl.build import for_new_neurons, hidden_neurons
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.check import check_kind
from mrsds_ppl.data.labels import Labels
from mrsds_ppl.data.sessions.join import join
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.fitted_messages import FittedMessages
from mrsds_ppl.output.plots.of_fit import Plots
from mrsds_ppl.output.results import read_run, save_run, tree_of
from mrsds_ppl.output.shown import as_html, as_text
from mrsds_ppl.storage.paths import RunPaths, find_run
from mrsds_ppl.train.history import History
from mrsds_ppl.train.training import TrainResult

# Of a spread of two numbers nothing can be said.
_FEWEST = 3
_GAP_DRAWS = 20


@dataclass(frozen=True)
class Fit(FittedMessages):
    """A fitted program, its posterior of the trials, and what is read off both.

    ``scores`` are those of the run, under the keys of ``NAME_latents.mat``. ``paths`` says where its files are, where
    it has any.
    """

    config: RunConfig
    trained: TrainResult
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

    @cached_property
    def hidden_neurons(self) -> np.ndarray:
        """Indices of the neurons that are hidden from the posterior in the test of co-smoothing."""
        return hidden_neurons(self.config, self.split)

    @cached_property
    def posteriors(self) -> dict[str, PosteriorSet]:
        """Of training and test trials, and of the pieces in the ``gap`` between them, inferred when asked for."""
        found = {"train": self.train, "test": self.test}
        if self.split.gap.num_trials:
            sampler = PosteriorSampler(self.program)
            found["gap"] = sampler.infer(random.key(0), self.split.gap, draws=_GAP_DRAWS)
        return found

    @cached_property
    def latents(self) -> xr.DataArray:
        """Posterior means (trial, time, latent) of all trials, in latent units; NaN after the end of a trial."""
        return labelled.latents(self.model, self.trials, self.posteriors)

    @cached_property
    def states(self) -> xr.DataArray:
        """p(z_t | y) of all trials with the latents summed out, (trial, time, state); NaN after the end of a trial."""
        return labelled.states(self.trials, self.posteriors)

    @cached_property
    def posterior(self) -> xr.DataTree:
        """Draws, predictions and likelihoods in ArviZ's schema, as in ``NAME_posterior.nc``."""
        if self.tree is not None:
            return self.tree
        which = self.config.output.trials
        return tree_of(self, {"train": (self.train, self.split.train), "test": (self.test, self.split.test)}, which)

    def evidence(self, trials: str | Trials = "test") -> xr.DataArray:
        """log p(y) of each trial in nats, states and latents summed out."""
        return labelled.evidence(self.program, self._trials(trials))

    def transitions(
        self, trials: str | Trials = "all", *, level: float = 0.9, draws: int = 100, seed: int = 0
    ) -> xr.Dataset:
        """How likely each state follows each, (from, to): ``mean low high`` of draws, with the dynamics as fitted.

        Args:
            trials: ``test``, ``train``, ``all``, or other trials of the same neurons.
            level: probability between low and high.
            draws, seed: of the states of the trials and of laws given these, and their seed.
        """
        key, program, chosen = self._for(trials, seed)
        return labelled.transitions(key, program, chosen, draws, level)

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

    def infer(self, trials: Trials, *, new_neurons: bool = False, draws: int = 100, seed: int = 0) -> xr.DataTree:
        """Posterior of new trials: as ``posterior``, where they stand as test trials.

        Args:
            trials: of the neurons of the fit, or with ``new_neurons`` a session with others, in some of its regions:
                its emissions alone are fitted to it first.
            new_neurons: whether the neurons are others.
            draws, seed: number of draws of the latents, and their seed.

        Raises:
            DataError: the trials were recorded otherwise than those of the fit.
        """
        if new_neurons:
            fit = self.with_new_neurons(trials, seed=seed)
            return fit.infer(fit.trials, draws=draws, seed=seed)
        return tree_of(self, {"test": (self.infer_set(trials, draws=draws, seed=seed), trials)}, "test")

    def with_new_neurons(self, trials: Trials, *, name: str = "new", seed: int = 0) -> "Fit":
        """The fitted dynamics, transitions and latents with emissions for a session with other neurons.

        What it has of training and test trials is that of this fit; ask it for what takes ``trials``, and give its own.

        Args:
            trials: the session, with the inputs, stages and bins of the fit and some of its regions.
            name: of the session.
            seed: of the search for its coordinates.

        Raises:
            DataError: the trials were recorded otherwise than those of the fit.
        """
        check_kind(trials, self.trials)
        session = join([trials], [name], regions=self.trials.region_names)
        found = for_new_neurons(
            random.key(seed), self.config, self.params, session, self.split.train, self.train.x_draws
        )
        return replace(self, **found._asdict(), trials=session, tree=None)

    def infer_set(self, trials: Trials, *, draws: int = 100, seed: int = 0) -> PosteriorSet:
        """The same in plain arrays."""
        key, program, chosen = self._for(trials, seed)
        return PosteriorSampler(program).infer(key, chosen, draws=draws)

    def calibrate(
        self, replicates: int = 20, *, executor: Executor | None = None, seed: int = 0, progress: bool = True
    ) -> Calibration:
        """How far fits of recordings like this one are from the truth: the recording is simulated and fitted anew.

        It takes as long as so many fits. ``communication(calibration=...)`` makes intervals of what comes of it.

        Args:
            replicates: number of simulated recordings.
            executor: fits them side by side, such as a ``concurrent.futures.ProcessPoolExecutor`` whose processes are
                spawned; by default one after another.
            seed: of the simulations and of the draws they are compared by.
            progress: print a line for each.

        Raises:
            RunError: there are fewer than three replicates, or sessions were joined.
        """
        if self.trials.sessions is not None:
            raise RunError("calibrate: needs a fit of one recording, and this one is of sessions that were joined.")
        if replicates < _FEWEST:
            raise RunError(f"replicates: found {replicates}, need at least {_FEWEST}; twenty tell how intervals hold.")
        keys = random.split(random.key(seed), replicates)
        made = (replicate(key, self.program, self.trials) for key in keys)
        found, run = [], map if executor is None else executor.map
        for one in run(_refit, made, repeat(self.config), range(replicates)):
            found.append(one)
            if progress:
                print(f"{len(found)} of {replicates} replicates fitted", flush=True)
        return calibration(found, region_labels(self.model, self.trials))

    @property
    def plot(self) -> Plots:
        """Figures, one method each: ``plot.latents()``, ``plot.states()``, ``plot.communication()`` and so on."""
        return Plots(self)

    def report(self, path: str | Path, *, labels: Labels | None = None, quick: bool = False) -> Path:
        """Write one self-contained HTML page.

        Args:
            path: where it shall appear.
            labels: conditions of the trials, as in :meth:`contrast`; those of the recording by default.
            quick: leave out which messages are there and which differ, whose tests take long with many regions.
        """
        from mrsds_ppl.output.report.gather import write_report

        return write_report(self, Path(path), labels, quick=quick)

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


def load(path: str | Path) -> Fit:
    """The fit of a run, read back from its files; see :meth:`Fit.load`."""
    return Fit.load(path)


def _refit(trials: Trials, config: RunConfig, seed: int) -> Recovered:
    """A replicate of a recording, fitted as the recording was, against its truth."""
    from mrsds_ppl.fit import fit_trials

    fit = fit_trials(trials, config, say=lambda _: None, progress=False)
    return recovered(random.key(seed), fit.program, fit.split.test, fit.weights)
