"""States and latents over time by condition, and states around events of the trials, for a report."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mrsds_ppl.output.plots import Average, average_over_trials, plot_averages, state_colour
from mrsds_ppl.output.report.page import Figure, Section

_MOST_CONDITIONS, _MOST_EVENTS = 6, 6
_FEWEST_TRIALS = 4  # of which a mean is drawn around an event
_BANDS = (
    "Bands: one standard error over trials to either side. Curves stop where under a fifth of the trials have a bin."
)


class Averages(NamedTuple):
    """Means over trials: states and latents by condition, states around events, each by name with its trials."""

    seconds: Float[np.ndarray, " bin"]
    states: Mapping[str, Average]
    latents: Mapping[str, Average]
    lags: Float[np.ndarray, " lag"]  # seconds
    around: Mapping[str, Average]


def averages_of(
    states: Float[np.ndarray, "trial bin state"],
    latents: Float[np.ndarray, "trial bin latent"],
    bin_width: float,
    labels: Shaped[np.ndarray, " trial"] | None,
    events: Mapping[str, Bool[np.ndarray, "trial bin"]],
) -> Averages:
    """Means over the trials of each condition, of the six with most trials, and around each event.

    Around events a trial counts once, with the mean over its own. Where all trials have one label there are none.

    Args:
        states: state probabilities, NaN after the end of a trial.
        latents: posterior means, likewise.
        bin_width: seconds.
        labels: of each trial, empty where it has none.
        events: bins in which something begins, by its name; see :func:`events_of`.
    """
    groups: dict[str, np.ndarray] = {}
    if labels is not None:
        names, counts = np.unique(labels[labels != ""], return_counts=True)
        kept = names[np.sort(np.argsort(-counts, kind="stable")[:_MOST_CONDITIONS])] if len(names) > 1 else names[:0]
        groups = {f"{name} ({(labels == name).sum()} trials)": labels == name for name in kept}
    half = max(int(np.median(np.isfinite(states[..., 0]).sum(1))) // 2, 1)
    around = {name: _around(states, begins, half) for name, begins in events.items()}
    return Averages(
        seconds=np.arange(states.shape[1]) * bin_width,
        states={name: average_over_trials(states[chosen]) for name, chosen in groups.items()},
        latents={name: average_over_trials(latents[chosen]) for name, chosen in groups.items()},
        lags=np.arange(-half, half + 1) * bin_width,
        around={
            f"{name} ({len(values)} trials)": average_over_trials(values)
            for name, values in around.items()
            if len(values) >= _FEWEST_TRIALS
        },
    )


def events_of(
    u: Float[np.ndarray, "trial bin input"],
    stage: Float[np.ndarray, "trial bin stage"],
    lengths: Int[np.ndarray, " trial"],
    input_names: Sequence[str],
) -> dict[str, Bool[np.ndarray, "trial bin"]]:
    """Bins in which a stage begins, or an input that was zero in the bin before, after a trial's first bin, by name.

    Args:
        u: inputs.
        stage: one-hot stages of the trials.
        lengths: bins of each trial.
        input_names: name of each input.
    """
    values = np.concatenate([stage, u], axis=-1)
    names = [*(f"stage {number}" for number in range(stage.shape[-1])), *(f"onset of {name}" for name in input_names)]
    inside = np.arange(1, values.shape[1]) < lengths[:, None]
    begins = np.zeros(values.shape, bool)
    begins[:, 1:] = (values[:, 1:] != 0) & (values[:, :-1] == 0) & inside[..., None]
    return {name: begins[..., index] for index, name in enumerate(names) if begins[..., index].any()}


def _around(values: np.ndarray, begins: np.ndarray, half: int) -> Float[np.ndarray, "trial lag feature"]:
    """Mean over the events of each trial that has any, NaN where none of them has the bin."""
    wide = np.pad(values, ((0, 0), (half, half), (0, 0)), constant_values=np.nan)
    means = []
    for trial, at in zip(wide, begins, strict=True):
        if at.any():
            windows = trial[np.flatnonzero(at)[:, None] + np.arange(2 * half + 1)]
            count = np.isfinite(windows).sum(0)
            means.append(np.where(count > 0, np.nansum(windows, 0) / np.maximum(count, 1), np.nan))
    return np.array(means).reshape(-1, 2 * half + 1, values.shape[2])


def averages_section(
    averages: Averages, states: Sequence[int], latents: Sequence[int], latent_names: Sequence[str]
) -> Section | None:
    """Mean state probabilities and latents by condition, and states around events; None where there are neither.

    Args:
        averages: of :func:`averages_of`.
        states: those that are shown.
        latents: likewise.
        latent_names: of all latents.
    """
    figures, text = [], ["Means over all trials, those of training too. They are no test of whether conditions differ."]
    by_state = [f"state {k}" for k in states]
    if averages.states and len(states) > 1:
        axes = _by_condition(averages.seconds, averages.states, states, by_state, "mean p(state)")
        caption = f"Mean probability of each state by condition. {_BANDS}"
        figures.append(Figure(axes, "Mean state probabilities over time in each condition.", caption))
    if averages.latents:
        names = [latent_names[index] for index in latents]
        axes = _by_condition(averages.seconds, averages.latents, latents, names, "mean (a.u.)")
        caption = f"Mean of the posterior means of latents by condition. {_BANDS}"
        figures.append(Figure(axes, "Mean latents over time in each condition.", caption))
    if averages.around and len(states) > 1:
        shown = dict(list(averages.around.items())[:_MOST_EVENTS])
        mean, error = (
            np.stack([values[:, states].T for values in some])
            for some in ([one.mean for one in shown.values()], [one.error for one in shown.values()])
        )
        axes = plot_averages(
            averages.lags,
            mean,
            error,
            list(shown),
            by_state,
            colours=[state_colour(k) for k in states],
            xlabel="time from the event (s)",
            ylabel="mean p(state)",
        )
        for ax in axes:
            ax.axvline(0.0, color="0.6", linewidth=0.8)
        caption = f"Mean probability of each state around events, where a trial with several counts once. {_BANDS}"
        figures.append(Figure(axes, "Mean state probabilities around events of the trials.", caption))
        if len(shown) < len(averages.around):
            text.append(f"Shown are {len(shown)} of {len(averages.around)} kinds of events.")
    return Section("averages", "States and latents by condition and event", text, figures) if figures else None


def _by_condition(
    seconds: np.ndarray, averages: Mapping[str, Average], features: Sequence[int], titles: Sequence[str], ylabel: str
) -> np.ndarray:
    mean, error = (
        np.stack(some)[..., features].transpose(2, 0, 1)
        for some in ([one.mean for one in averages.values()], [one.error for one in averages.values()])
    )
    return plot_averages(seconds, mean, error, titles, list(averages), ylabel=ylabel)
