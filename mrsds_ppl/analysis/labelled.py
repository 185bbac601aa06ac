"""Results as xarray objects, with coordinates a user can select by: trial, seconds, region, neuron, state."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import interval_of, region_labels
from mrsds_ppl.analysis.evidence import trial_evidence
from mrsds_ppl.analysis.flow import Held, vector_field, visited_grid
from mrsds_ppl.analysis.forecast import Forecast
from mrsds_ppl.analysis.metrics import Scores, evaluate
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.analysis.posterior_paths import transition_draws
from mrsds_ppl.analysis.silencing import Silencing
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.mrsds import MRSDS

_SCORED = ("given all data", "one bin ahead", "hidden neurons")


def latents(model: MRSDS, trials: Trials, sets: Mapping[str, PosteriorSet]) -> xr.DataArray:
    """Posterior means of the latents in all trials, (trial, time, latent), NaN after the end of a trial."""
    names, regions = latent_names(model, trials)
    coords = {**_trial_coords(trials, sets), "latent": names, "region": ("latent", regions)}
    values = _in_order(trials, sets, "x_mean")
    return xr.DataArray(values, coords, ("trial", "time", "latent"), "latents", {"units": "latent units"})


def states(trials: Trials, sets: Mapping[str, PosteriorSet]) -> xr.DataArray:
    """Probabilities of the states in all trials, (trial, time, state), NaN after the end of a trial."""
    values = _in_order(trials, sets, "z_prob")
    coords = {**_trial_coords(trials, sets), "state": np.arange(values.shape[-1])}
    return xr.DataArray(values, coords, ("trial", "time", "state"), "states", {"long_name": "probability of the state"})


def transitions(key: PRNGKeyArray, program: FittedProgram, trials: Trials, draws: int, level: float) -> xr.Dataset:
    """``mean low high`` of how likely each state follows each, (from, to).

    Args:
        key: random key.
        program: program, guide and parameters.
        trials: the trials.
        draws: of states and of laws given these.
        level: probability between low and high.

    Raises:
        RunError: ``level`` is not between 0 and 1.
    """
    values = transition_draws(key, program, trials.batch(), draws)
    states = np.arange(values.shape[-1])
    return interval_of(xr.DataArray(values, {"from": states, "to": states}, ("draw", "from", "to")), level)


def latent_names(model: MRSDS, trials: Trials) -> tuple[list[str], list[str]]:
    """REGION:0, REGION:1, ... of each latent, and its region."""
    labels = region_labels(model, trials)
    pairs = [(name, i) for name, size in zip(labels, model.latent_sizes, strict=True) for i in range(size)]
    return [f"{name}:{i}" for name, i in pairs], [name for name, _ in pairs]


def evidence(program: FittedProgram, trials: Trials) -> xr.DataArray:
    """log p(y) of each trial in nats, states and latents summed out."""
    values = trial_evidence(program, trials)
    return xr.DataArray(values, {"trial": trials.ids}, ("trial",), "evidence", {"units": "nats"})


def scores(
    key: PRNGKeyArray, sampler: PosteriorSampler, trials: Trials, hidden: Int[np.ndarray, " hidden"]
) -> xr.Dataset:
    """Scores of the expected signals: given all data, one bin ahead, and of neurons that were hidden.

    Sessions that were joined are scored one by one, along the axis ``session``, as their neurons are not the same.

    Args:
        key: random key.
        sampler: of the fitted program and guide, which serve the trials.
        trials: the trials.
        hidden: neurons to hide.
    """
    if trials.sessions is not None:
        parts = trials.by_session()
        each = [_scores_of_one(key, sampler, part, hidden) for part in parts.values()]
        return xr.concat(each, xr.IndexVariable("session", list(parts)))
    return _scores_of_one(key, sampler, trials, hidden)


def _scores_of_one(
    key: PRNGKeyArray, sampler: PosteriorSampler, trials: Trials, hidden: Int[np.ndarray, " hidden"]
) -> xr.Dataset:
    plain, counts = sampler.reconstruct(key, trials), sampler.fitted.networks.emissions.counts
    estimates: list[tuple[np.ndarray, Any]] = [(plain.y_mean, None), (plain.y_next, None)]
    if len(hidden):
        estimates.append((sampler.reconstruct(key, trials, hidden_neurons=hidden).y_mean, hidden))
    each = [evaluate(trials.y, trials.observed, estimate, counts, some) for estimate, some in estimates]
    by_neuron = np.full((len(each), trials.num_neurons), np.nan)
    for row, (found, (_, some)) in enumerate(zip(each, estimates, strict=True)):
        by_neuron[row, slice(None) if some is None else some] = found.r2_by_neuron

    def of(name: str) -> xr.Variable:
        return xr.Variable(("prediction",), np.array([_number(found, name) for found in each]))

    names = ["r2", "mse", "r2_published", *(["bits_per_spike"] if counts.any() else [])]
    variables = {name: of(name) for name in names}
    variables["r2_by_neuron"] = xr.Variable(("prediction", "neuron"), by_neuron)
    coords = {"prediction": list(_SCORED[: len(each)]), **_neuron_coords(trials)}
    return xr.Dataset(variables, coords)


def forecasts(found: Forecast, trials: Trials) -> xr.Dataset:
    """Expected signals (cut, trial, horizon, neuron) and their R^2 (horizon); horizon in bins."""
    horizons = np.arange(1, found.y_mean.shape[2] + 1)
    return xr.Dataset(
        {"y_mean": (("cut", "trial", "horizon", "neuron"), found.y_mean), "r2": (("horizon",), found.r2)},
        {"cut": found.cuts, "trial": trials.ids, "horizon": horizons, **_neuron_coords(trials)},
    )


def silenced(found: Silencing, model: MRSDS, trials: Trials) -> xr.Dataset:
    """States, latents and expected signals with and without the messages; time in seconds from the start of a trial."""
    names, regions = latent_names(model, trials)
    by_draw, by_latent = ("draw", "trial", "time"), ("draw", "trial", "time", "latent")
    return xr.Dataset(
        {
            "z_intact": (by_draw, found.z_intact),
            "z_silenced": (by_draw, found.z_silenced),
            "x_intact": (by_latent, found.x_intact),
            "x_silenced": (by_latent, found.x_silenced),
            "y_intact": (("trial", "time", "neuron"), found.y_intact),
            "y_silenced": (("trial", "time", "neuron"), found.y_silenced),
        },
        {
            "trial": trials.ids,
            "time": found.bins * trials.bin_width,
            "latent": names,
            "latent_region": ("latent", regions),
            **_neuron_coords(trials),
        },
    )


def flow(
    fitted: FittedProgram,
    trials: Trials,
    x: np.ndarray,
    region: str | None,
    count: int,
) -> xr.Dataset:
    """Change of the latents in one bin, (state, point, latent), at points of a grid over those visited.

    Args:
        fitted: program and parameters.
        trials: the recording.
        x: posterior means (trial, time, latent) of all regions, NaN in padding; other regions are held at their mean.
        region: name of the region; None for all together.
        count: grid lines along each latent.

    Raises:
        RunError: there is no such region, or the latents are more than two.
    """
    model = fitted.model
    labels = region_labels(model, trials)
    if region is not None and region not in labels:
        raise RunError(f"region: found {region!r}; allowed: {', '.join(labels)}.")
    names, regions = latent_names(model, trials)
    kept = np.flatnonzero([region in (None, own) for own in regions])
    if len(kept) > 2:
        raise RunError(f"flow: {len(kept)} latents move, and a field can be drawn of one or two; name a region.")
    visited = x.reshape(-1, x.shape[-1])
    visited = visited[np.isfinite(visited).all(1)].astype(float)
    middle = visited.mean(0)
    held: Held = {own: middle[[i for i, name in enumerate(regions) if name == own]] for own in labels if own != region}
    grid = visited_grid(visited[:, kept], count)
    fields = [
        vector_field(fitted, region, state=k, grid=grid, at=None if region is None else held, region_names=labels)
        for k in range(model.num_states)
    ]
    return xr.Dataset(
        {
            "change": (("state", "point", "latent"), np.stack([found.change for found in fields])),
            "x": (("point", "latent"), fields[0].points),
        },
        {"state": np.arange(model.num_states), "latent": [names[i] for i in kept]},
        {"units": "latent units per bin"},
    )


def _in_order(trials: Trials, sets: Mapping[str, PosteriorSet], name: str) -> np.ndarray:
    """Values of all trials in the order of the recording, NaN in padding."""
    place = {number: i for i, number in enumerate(trials.ids.tolist())}
    first = getattr(next(iter(sets.values())), name)
    values = np.full((trials.num_trials, *first.shape[1:]), np.nan, first.dtype)
    for part in sets.values():
        values[[place[number] for number in part.trial_ids.tolist()]] = getattr(part, name)
    values[np.arange(trials.num_bins) >= trials.lengths[:, None]] = np.nan
    return values


def _trial_coords(trials: Trials, sets: Mapping[str, PosteriorSet]) -> dict[str, Any]:
    split = {number: name for name, part in sets.items() for number in part.trial_ids.tolist()}
    return {
        "trial": trials.ids,
        **place_coords(trials),
        **session_coord(trials),
        "time": ("time", np.arange(trials.num_bins) * trials.bin_width, {"units": "s"}),
        "split": ("trial", [split[number] for number in trials.ids.tolist()]),
    }


def place_coords(trials: Trials) -> dict[str, Any]:
    """Where pieces of one recording begin in it, and whether each carries on from the one before; else nothing."""
    if trials.starts is None:
        return {}
    return {"start": ("trial", trials.starts, {"units": "s"}), "follows": ("trial", trials.follows)}


def session_coord(trials: Trials) -> dict[str, Any]:
    """The session of each trial, where several were joined; else nothing."""
    return {} if trials.sessions is None else {"session": ("trial", trials.sessions)}


def _neuron_coords(trials: Trials) -> dict[str, Any]:
    return {
        "neuron": trials.dataset["neuron"].values,
        "region": ("neuron", np.asarray(trials.region_names)[trials.region_of_neuron]),
    }


def _number(found: Scores, name: str) -> float:
    value = getattr(found, name)
    return float("nan") if value is None else float(value)
