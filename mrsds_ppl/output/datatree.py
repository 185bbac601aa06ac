"""NAME_posterior.nc: the posterior as an xarray.DataTree in ArviZ's schema, which ArviZ 0.23 and 1.x open.

Groups, every one with its own coordinates:

    posterior             x (chain, draw, trial, time, latent); z_prob (chain, draw, trial, time, state);
                          global parameters
    posterior_predictive  y (chain, draw, trial, time, neuron), the first draws of each chain
    log_likelihood        y (chain, draw, trial), of whole trials, x and z integrated out
    sample_stats          elbo, log_marginal, pareto_k (trial)
    observed_data         y (trial, time, neuron)
    constant_data         u (trial, time, input); observed (trial, time, neuron); lengths (trial); large parameters

Padded bins are NaN, and so are missing values of ``y`` in observed_data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from mrsds_ppl.analysis.posterior import PosteriorSet
from mrsds_ppl.analysis.recovery.alignment import valid_bins
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.storage.atomic import written_aside

NUM_CHAINS = 4

SplitName = Literal["train", "test"]

# Point estimates of up to this many numbers are repeated for every draw, since ArviZ wants that of a posterior;
# larger ones (weights of networks) would only swell the file.
_LARGEST_REPEATED = 1024
# Numbers that the predictive draws of y may hold together, unless even one draw a chain holds more.
_PREDICTIVE_BUDGET = 2**24
# Shuffled bytes at the lowest level: what is padded or counts shrinks most, and higher levels only take longer.
_COMPRESSED: dict[str, object] = {"zlib": True, "complevel": 1, "shuffle": True}
_LAYOUT = (
    "The draws are independent. They are laid out as {chains} chains of {draws} because ArviZ's "
    "diagnostics compare chains: that the chains agree says nothing about how good they are. "
    "The relative efficiency of independent draws is 1: az.loo(..., reff=1.0)."
)
_PREDICTIVE = "The first draws of each chain: {kept} of {total} draws in all, which bounds the size of this file."
_MARGINAL = (
    "Log likelihood of whole trials given the global parameters, in nats, x and z integrated out by importance weights "
    "of the guide: trials are what is exchangeable. A log likelihood given a trial's own x would make LOO meaningless."
)


def write_tree(path: str | Path, tree: xr.DataTree) -> None:
    """Writes a posterior with h5netcdf, so that the file appears whole or not at all.

    Args:
        path: where the file shall appear. An earlier file there is replaced.
        tree: of :func:`posterior_tree`.

    Raises:
        RunError: if the file cannot be written.
    """
    with written_aside(path) as aside:
        tree.to_netcdf(aside, engine="h5netcdf")


def posterior_tree(
    *,
    sets: Mapping[SplitName, PosteriorSet],
    trials: Mapping[SplitName, Trials],
    which: Literal["test", "all"],
    latent_region_sizes: Sequence[int],
    global_parameters: Mapping[str, np.ndarray],
    attrs: Mapping[str, str | int | float],
    predictive_draws: int = 20,
) -> xr.DataTree:
    """The posterior in ArviZ's schema, real numbers in float32.

    The draws, cut to a multiple of four, become four chains (one chain if there are fewer than four). Of the predictive
    draws each chain keeps its first few, so many that y stays within 16.8 million numbers, but at least one.

    Args:
        sets: posterior of each split. Where it has no ``y_draws`` there is no group ``posterior_predictive``, and
            where it has no ``log_likelihood_draws`` none of ``log_likelihood``: the same number repeated has no tail,
            which ArviZ refuses.
        trials: trials of each split, in the order of the posterior's.
        which: ``test`` takes the test trials, ``all`` every split given; the coordinate ``split`` says which is which.
        latent_region_sizes: number of latents of each region, or one number if all regions share one pooled latent.
        global_parameters: point estimates by name. Those of up to 1,024 numbers are repeated for every draw, larger
            ones stand once in ``constant_data``.
        attrs: attributes of the root, such as the version and the seeds.
        predictive_draws: the most predictive draws to keep.

    Raises:
        ValueError: if a split that ``which`` asks for is not given, or a parameter has the name of another variable.

    Source: ArviZ's InferenceData schema, https://python.arviz.org/en/stable/schema/schema.html
    """
    splits: list[SplitName] = ["test"] if which == "test" else ["train", "test"]
    missing = [split for split in splits if split not in sets or split not in trials]
    if missing:
        raise ValueError(f"which={which!r} needs the posterior and the trials of {splits}; not given: {missing}.")
    taken = {"x", "z_prob", "u", "observed", "lengths"} & set(global_parameters)
    if taken:
        raise ValueError(
            f"Global parameters cannot be named {sorted(taken)}: other variables of the file have these names."
        )
    chosen, recordings = [sets[split] for split in splits], [trials[split] for split in splits]
    lengths = np.concatenate([part.lengths for part in chosen])
    valid = valid_bins(lengths, chosen[0].x_mean.shape[1])
    coords = _coordinates(splits, chosen, recordings[0], latent_region_sizes)
    starts = [recording.starts for recording in recordings if recording.starts is not None]
    if len(starts) == len(recordings):
        about = {"units": "s", "long_name": "start of the piece after the start of the recording"}
        coords["start"] = xr.Variable(("trial",), np.concatenate(starts), about)

    x = _in_chains(np.concatenate([part.x_draws for part in chosen], axis=1))
    z_prob = _in_chains(np.concatenate([part.z_prob_draws for part in chosen], axis=1))
    chains, draws = x.shape[:2]
    repeated, standing = _global_variables(global_parameters, chains, draws)
    layout = _LAYOUT.format(chains=chains, draws=draws)
    y = np.concatenate([recording.y for recording in recordings])
    observed = np.concatenate([recording.observed for recording in recordings])
    u = np.concatenate([recording.u for recording in recordings])

    groups = {
        "posterior": _dataset(
            coords,
            {
                "x": _variable(("chain", "draw", "trial", "time", "latent"), x, valid),
                "z_prob": _variable(("chain", "draw", "trial", "time", "state"), z_prob, valid),
                **repeated,
            },
            layout,
        ),
        "sample_stats": _dataset(
            coords,
            {
                "elbo": _variable(("trial",), np.concatenate([part.elbo for part in chosen])),
                "log_marginal": _variable(("trial",), np.concatenate([part.log_likelihood for part in chosen])),
                "pareto_k": _variable(("trial",), np.concatenate([part.pareto_k for part in chosen])),
            },
            "Of each trial: the evidence lower bound and the importance-weighted estimate of the log likelihood, both "
            "in nats, and the shape of the tail of the importance weights (the estimate is good below 0.7).",
        ),
        "observed_data": _dataset(coords, {"y": _variable(("trial", "time", "neuron"), y, observed)}),
        "constant_data": _dataset(
            coords,
            {
                **({"u": _variable(("trial", "time", "input"), u, valid)} if u.shape[2] else {}),
                "observed": xr.Variable(("trial", "time", "neuron"), observed, encoding=_COMPRESSED),
                "lengths": xr.Variable(("trial",), lengths),
                **_own_neurons(recordings[0]),
                **standing,
            },
        ),
    }
    weights = [part.log_likelihood_draws for part in chosen if part.log_likelihood_draws is not None]
    if len(weights) == len(chosen):
        marginal = _in_chains(np.concatenate(weights, axis=1))
        groups["log_likelihood"] = _dataset(
            coords, {"y": _variable(("chain", "draw", "trial"), marginal)}, f"{_MARGINAL} {layout}"
        )
    predicted = [part.y_draws for part in chosen if part.y_draws is not None]
    if len(predicted) == len(chosen):
        y_draws = _first_of_each_chain([_in_chains(part) for part in predicted], predictive_draws)
        kept, total = y_draws.shape[0] * y_draws.shape[1], chains * draws
        groups["posterior_predictive"] = _dataset(
            coords,
            {"y": _variable(("chain", "draw", "trial", "time", "neuron"), y_draws, valid)},
            _PREDICTIVE.format(kept=kept, total=total),
        )
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={**attrs, "inference_library": "mrsds_ppl"}), **groups})


def _variable(dims: tuple[str, ...], values: np.ndarray, kept: np.ndarray | None = None) -> xr.Variable:
    """``values`` in float32, NaN where ``kept`` is false. ``kept`` begins at the axis ``trial``.

    Whole numbers, which are counts, are stored as the smallest unsigned integers that hold them; they too are read as
    floats with NaN.
    """
    encoding = dict(_COMPRESSED)
    if np.issubdtype(values.dtype, np.integer) and values.min(initial=0) >= 0:
        highest = int(values.max(initial=0))
        stored = next((t for t in (np.uint8, np.uint16) if highest < np.iinfo(t).max), None)
        if stored is not None:
            encoding |= {"dtype": np.dtype(stored).name, "_FillValue": np.iinfo(stored).max}
    numbers = values.astype(np.float32)
    if kept is not None:
        axes = dims[dims.index("trial") :]
        numbers = np.where(kept.reshape(kept.shape + (1,) * (len(axes) - kept.ndim)), numbers, np.float32(np.nan))
    return xr.Variable(dims, numbers, encoding=encoding)


def _dataset(coords: dict[str, xr.Variable], variables: dict[str, xr.Variable], note: str | None = None) -> xr.Dataset:
    """One group: the variables with those of the coordinates whose axis they have."""
    sizes = {dim: size for variable in variables.values() for dim, size in variable.sizes.items()}
    known = {name: variable for name, variable in coords.items() if variable.dims[0] in sizes}
    drawn = {dim: np.arange(sizes[dim]) for dim in ("chain", "draw") if dim in sizes}
    return xr.Dataset(variables, coords={**known, **drawn}, attrs={} if note is None else {"note": note})


def _coordinates(
    splits: list[SplitName], chosen: list[PosteriorSet], recording: Trials, latent_region_sizes: Sequence[int]
) -> dict[str, xr.Variable]:
    """Trial ids and splits, seconds, and names and regions of neurons and latents; each has one axis."""
    num_bins, num_states = chosen[0].z_prob.shape[1:]
    regions = list(recording.region_names)
    latent_regions = regions if len(latent_region_sizes) == len(regions) else ["+".join(regions)]
    neuron_region = np.repeat(regions, recording.region_sizes)
    latent_region = np.repeat(latent_regions, latent_region_sizes)
    ids = np.concatenate([part.trial_ids for part in chosen])
    sessions = {} if recording.sessions is None else {"session": [str(i).partition("/")[0] for i in ids]}
    return {
        "trial": xr.Variable(("trial",), ids),
        **{name: xr.Variable(("trial",), each) for name, each in sessions.items()},
        "split": xr.Variable(("trial",), np.repeat(splits, [len(part.trial_ids) for part in chosen])),
        "time": xr.Variable(
            ("time",),
            np.arange(num_bins) * recording.bin_width,
            {"units": "s", "long_name": "start of the bin after the start of the trial"},
        ),
        "neuron": xr.Variable(("neuron",), recording.neuron_ids),
        "region": xr.Variable(("neuron",), neuron_region),
        "latent": xr.Variable(("latent",), _names(latent_regions, latent_region_sizes)),
        "latent_region": xr.Variable(("latent",), latent_region),
        "state": xr.Variable(("state",), np.arange(num_states)),
        "input": xr.Variable(("input",), recording.input_names),
    }


def _own_neurons(recording: Trials) -> dict[str, xr.Variable]:
    """The neuron of each joined session in each column, empty where it has none."""
    if recording.own_neurons is None:
        return {}
    return {
        "own_neuron": xr.Variable(("session_name", "neuron"), recording.own_neurons),
        "session_name": xr.Variable(("session_name",), recording.session_names),
    }


def _names(regions: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """REGION:0, REGION:1, ... for each region, counting from 0 within it."""
    return [f"{region}:{i}" for region, size in zip(regions, sizes, strict=True) for i in range(size)]


def _global_variables(
    parameters: Mapping[str, np.ndarray], chains: int, draws: int
) -> tuple[dict[str, xr.Variable], dict[str, xr.Variable]]:
    """Small parameters repeated for every draw, and large ones once."""
    repeated, standing = {}, {}
    for name, values in parameters.items():
        array = np.asarray(values)
        dims = tuple(f"{name}_dim_{axis}" for axis in range(array.ndim))
        if array.size > _LARGEST_REPEATED:
            standing[name] = _variable(dims, array)
        else:
            repeated[name] = _variable(("chain", "draw", *dims), np.broadcast_to(array, (chains, draws, *array.shape)))
    return repeated, standing


def _in_chains(draws: np.ndarray) -> np.ndarray:
    """(draw, ...) as (chain, draw, ...): four chains, or one if there are fewer than four draws."""
    chains = NUM_CHAINS if len(draws) >= NUM_CHAINS else 1
    return draws[: len(draws) // chains * chains].reshape(chains, -1, *draws.shape[1:])


def _first_of_each_chain(parts: Sequence[np.ndarray], most: int) -> np.ndarray:
    """The first draws of each chain, splits joined: at most ``most``, within the budget, but at least one a chain."""
    chains = parts[0].shape[0]
    of_one_draw = max(sum(int(np.prod(part.shape[2:])) for part in parts), 1)
    kept = max(min(most, _PREDICTIVE_BUDGET // of_one_draw) // chains, 1)
    return np.concatenate([part[:, :kept] for part in parts], axis=2)
