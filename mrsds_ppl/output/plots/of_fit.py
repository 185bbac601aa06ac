"""The figures of a fit: each method gathers what a figure needs, draws it, and returns its axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrsds_ppl.data.labels import Labels
from mrsds_ppl.errors import DataError
from mrsds_ppl.output.plots.activity import plot_activity, plot_neurons
from mrsds_ppl.output.plots.flow import plot_vector_field
from mrsds_ppl.output.plots.messages import plot_communication, plot_message_norms
from mrsds_ppl.output.plots.scores import plot_neuron_scores, plot_training
from mrsds_ppl.output.plots.style import make_axes, state_colour
from mrsds_ppl.output.plots.trials import plot_states, plot_trial

if TYPE_CHECKING:
    import matplotlib.axes

    import mrsds_ppl.fitted


class Plots:
    """Figures of a fit. ``trial`` is the id of a trial; by default the first test trial.

    Args:
        fit: what was fitted.
    """

    def __init__(self, fit: "mrsds_ppl.fitted.Fit") -> None:
        self._fit = fit

    def latents(self, trial: int | np.integer | None = None, *, axes: np.ndarray | None = None) -> np.ndarray:
        """Posterior means of the latents of one trial over its likeliest states, and the state probabilities."""
        fit, (number, bins) = self._fit, self._trial(trial)
        x, z = (some.sel(trial=number).values[:bins] for some in (fit.latents, fit.states))
        names = [f"{name.replace(':', chr(10) + 'latent ')} (a.u.)" for name in fit.latents["latent"].values]
        return plot_trial(self._seconds(bins), x.astype(float), z, names, axes=axes)

    def states(self, trials: str = "test", *, axes: np.ndarray | None = None) -> np.ndarray:
        """Raster of the likeliest state of every bin, one trial a row, and the mean probabilities over trials."""
        fit = self._fit
        part = fit.states if trials == "all" else fit.states.isel(trial=fit.states["split"].values == trials)
        if not part.sizes["trial"]:
            raise DataError(f"trials: found {trials!r}; allowed: test, train, all.")
        lengths = fit.trials.lengths[np.isin(fit.trials.ids, part["trial"].values)]
        return plot_states(self._seconds(fit.trials.num_bins), np.nan_to_num(part.values), lengths, axes=axes)

    def communication(
        self,
        labels: Labels | None = None,
        *,
        axes: np.ndarray | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Who speaks to whom in each state, or in each condition of the trials: mean norms as graph and matrix."""
        found = self._fit.communication(labels, weights=False, seed=seed)["mean"]
        kind = "state" if labels is None else "condition"
        titles = [f"{kind} {name}" for name in found[kind].values]
        targets, sources = (list(map(str, found[axis].values)) for axis in ("target", "source"))
        return plot_communication(np.nan_to_num(found.values), targets, sources, titles=titles, axes=axes)

    def messages(
        self, trial: int | np.integer | None = None, *, draws: int = 20, axes: np.ndarray | None = None, seed: int = 0
    ) -> np.ndarray:
        """Mean norms of the messages that each region receives over one trial."""
        fit, (number, bins) = self._fit, self._trial(trial)
        one = fit.trials.select(np.flatnonzero(fit.trials.ids == number))
        found = fit.messages(one, draws=draws, seed=seed)
        norms = ((found**2).sum("latent") ** 0.5).mean("draw").isel(trial=0, time=slice(0, bins))
        # No message leads into the first bin.
        values = norms.transpose("time", "target", "source").values.astype(float)
        values[0] = np.nan
        targets, sources = (list(map(str, found[axis].values)) for axis in ("target", "source"))
        z = fit.states.sel(trial=number).values[:bins]
        return plot_message_norms(self._seconds(bins), values, targets, sources, z_prob=z, axes=axes)

    def activity(self, trial: int | np.integer | None = None, *, axes: np.ndarray | None = None) -> np.ndarray:
        """All neurons of one trial: as recorded, and as expected given all data of the trial."""
        fit, (number, bins) = self._fit, self._trial(trial)
        panels = self._activity(number, bins)
        return plot_activity(
            self._seconds(bins), panels, fit.trials.region_sizes, fit.trials.region_names, unit=self._unit(), axes=axes
        )

    def neurons(
        self, neurons: Sequence[int], trial: int | np.integer | None = None, *, axes: np.ndarray | None = None
    ) -> np.ndarray:
        """A few neurons of one trial, by index: as recorded, and as expected given all data of the trial."""
        fit, (number, bins) = self._fit, self._trial(trial)
        names = [str(name) for name in fit.trials.dataset["neuron"].values]
        return plot_neurons(
            self._seconds(bins), self._activity(number, bins), np.asarray(neurons), names, unit=self._unit(), axes=axes
        )

    def flow(self, region: str | None = None, *, axes: np.ndarray | None = None) -> np.ndarray:
        """Where the latents of a region, or of all, go in the next bin of each state; at most two latents."""
        fit = self._fit
        found = fit.flow(region)
        states = found["state"].values
        if axes is None:
            flat = found.sizes["latent"] == 1
            axes = make_axes(1, len(states), 2.9 if flat else 3.5, width=3.5 * len(states))[0]
        x = fit.latents.sel(latent=found["latent"].values)
        z = fit.states.values.argmax(-1)
        names = [f"{name} (a.u.)" for name in found["latent"].values]
        test = np.flatnonzero(fit.latents["split"].values == "test")
        for ax, k in zip(np.ravel(axes), states, strict=True):
            paths = [np.where((z[i] == k)[:, None], x.values[i], np.nan).astype(float) for i in test]
            plot_vector_field(
                found["x"].values.astype(float),
                found["change"].values[k].astype(float),
                names,
                trajectories=paths,
                colour=state_colour(int(k)),
                ax=ax,
            )
            ax.set_title(f"state {k}", loc="right")
        return axes

    def scores(self, trials: str = "test", *, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """R^2 of each neuron that was hidden from the posterior; of every neuron given all data where none was."""
        fit = self._fit
        found = fit.score(trials)["r2_by_neuron"].isel(prediction=-1 if len(fit.hidden_neurons) else 0).values
        # Of joined sessions with a leading axis of these.
        regions = np.broadcast_to(fit.trials.region_of_neuron, found.shape)
        return plot_neuron_scores(found.ravel(), regions.ravel(), fit.trials.region_names, ax=ax)

    def training(self, *, axes: np.ndarray | None = None) -> np.ndarray:
        """Curves of training."""
        fit = self._fit
        metrics, total = fit.history.metrics, fit.split.train.observed.sum()
        curves = {
            "bound (ELBO)": np.asarray(metrics["elbo"], float),
            "log p(y|x)": np.asarray(metrics["log_py"], float) / total,
            "log p(x)": np.asarray(metrics["log_px"], float) / total,
            "log q(x)": np.asarray(metrics["log_qx"], float) / total,
        }
        return plot_training(curves, skipped=np.asarray(fit.history.skipped, bool), axes=axes)

    def _trial(self, trial: int | np.integer | None) -> tuple[int | np.integer, int]:
        ids = self._fit.trials.ids
        number = self._fit.split.test.ids[0] if trial is None else trial
        place = np.flatnonzero(ids == number)
        if not len(place):
            raise DataError(f"trial: found {trial!r}; allowed: an id of the recording, {ids[0]} to {ids[-1]}.")
        return number, int(self._fit.trials.lengths[place[0]])

    def _seconds(self, bins: int) -> np.ndarray:
        return np.arange(bins) * self._fit.trials.bin_width

    def _activity(self, number: int | np.integer, bins: int) -> dict[str, np.ndarray]:
        fit = self._fit
        part = next(part for part in fit.posteriors.values() if number in part.trial_ids)
        place, own = np.flatnonzero(fit.trials.ids == number)[0], np.flatnonzero(part.trial_ids == number)[0]
        return {
            "observed": fit.trials.y[place, :bins].astype(float),
            "reconstructed": part.y_mean[own, :bins].astype(float),
        }

    def _unit(self) -> str:
        return "spikes per bin" if self._fit.counts.all() else "signal (a.u.)"
