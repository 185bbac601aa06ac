"""Whether trials can be read by what was fitted to others, and what in trials a fit can learn little from."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from mrsds_ppl.data.signals import Refused
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, listed


def check_trials(trials: Trials, fitted: Trials, *, refused: Sequence[Sequence[Refused]]) -> None:
    """Check that trials were recorded as those of a fit: the same neurons, inputs, stages and bins.

    A neuron of the fit that was not recorded this time may be NaN throughout.

    Args:
        trials: the trials.
        fitted: those of the fit.
        refused: values that signals of each neuron may not have.

    Raises:
        DataError: what differs, as found and as fitted; or the same names in another order.
    """
    if trials.session_names != fitted.session_names:
        raise DataError(
            f"sessions: found {_sessions(trials)}, but the fit is of {_sessions(fitted)}. Join trials of its sessions "
            "under their names, in its order; infer(..., new_neurons=True) is for a session with other neurons."
        )
    for what, found, wanted in (
        ("region_sizes", trials.region_sizes, fitted.region_sizes),
        ("us: number of inputs", trials.num_inputs, fitted.num_inputs),
        ("stages: number of stages", trials.num_stages, fitted.num_stages),
    ):
        if found != wanted:
            raise DataError(
                f"{what}: found {found}, but the fit is of {wanted}. Give the same neurons, inputs "
                "and stages in the same order; fill neurons that were not recorded with NaN."
            )
    named = {
        "regions": (trials.region_names, fitted.region_names),
        "inputs": (trials.input_names, fitted.input_names),
        "neurons": (trials.neuron_ids.tolist(), fitted.neuron_ids.tolist()),
    }
    for what, (names, known) in named.items():
        if names != known and set(names) == set(known):
            raise DataError(
                f"{what}: found those of the fit in another order: {names[:5]}, but the fit has {known[:5]}."
            )
    _check_bins(trials, fitted)
    if not trials.observed.any():
        raise DataError("ys: no value of any trial is observed, so there is nothing to infer from.")
    # Whoever fits needs every neuron at least once; whoever infers does not.
    trials.validate(refused=refused, unseen=True)


def check_kind(trials: Trials, fitted: Trials) -> None:
    """Check that a session with other neurons was recorded as that of a fit: the same inputs, stages and bins.

    Args:
        trials: the session.
        fitted: the trials of the fit.

    Raises:
        DataError: what differs, as found and as fitted.
    """
    if trials.sessions is not None:
        raise DataError("found several sessions that were joined; give the trials of one new session.")
    for what, found, wanted in (
        ("inputs", trials.input_names, fitted.input_names),
        ("stages: number of stages", trials.num_stages, fitted.num_stages),
    ):
        if found != wanted:
            raise DataError(f"{what}: found {found}, but the fit is of {wanted}. Give the same in the same order.")
    _check_bins(trials, fitted)


def _sessions(trials: Trials) -> str:
    return "one recording" if trials.session_names is None else ", ".join(trials.session_names)


def _check_bins(trials: Trials, fitted: Trials) -> None:
    if not np.isclose(trials.bin_width, fitted.bin_width):
        raise DataError(
            f"bin_width: found bins of {trials.bin_width:g} s, but the fit is of bins of "
            f"{fitted.bin_width:g} s, and its dynamics go from bin to bin. Bin the recording anew."
        )


def known_trials(trials: str | Trials, fitted: Trials, split: Split, *, refused: Sequence[Sequence[Refused]]) -> Trials:
    """The trials of a fit that a name stands for, or other trials, checked.

    Args:
        trials: ``test``, ``train``, ``all``, or other trials.
        fitted, split: those of the fit.
        refused: values that signals of each neuron may not have.

    Raises:
        DataError: there is no such name, or the trials do not fit.
    """
    named = {"test": split.test, "train": split.train, "all": fitted}
    if isinstance(trials, Trials):
        check_trials(trials, fitted, refused=refused)
        return trials
    if trials not in named:
        raise DataError(f"trials: found {trials!r}; allowed: {', '.join(named)}, or Trials.")
    return named[trials]


# Ten counts tell a rate to within a third.
_RARE = 10
# Of the standard deviation of an input; what stands beside it has a size of about one.
_LARGE, _APART = 100.0, 1e4


def idle_neurons(trials: Trials) -> Bool[np.ndarray, " neuron"]:
    """Which neurons never vary, or are never observed: silent or constant ones, of which nothing is learned."""
    low, high = _extremes(trials)
    return low >= high


def recording_notes(train: Trials, latent_sizes: Sequence[int]) -> list[str]:
    """What in the training trials a fit can learn little from: neurons that hardly fire, latents, scales of inputs.

    Args:
        train: training trials.
        latent_sizes: latents of each region, or of all regions together.
    """
    low, high = _extremes(train)
    silent, unseen = (low == 0) & (high == 0), low > high
    constant = (low == high) & ~silent
    y = np.where(train.observed, train.y, 0.0)
    counts = ((y >= 0) & (y == np.round(y))).all((0, 1))
    rare = counts & (low < high) & (y.sum((0, 1)) < _RARE)
    out = "nothing is learned of them; data.drop_silent_neurons: true, or Trials.without_neurons, leaves them out"
    kinds = (
        (silent, f"silent in training, so that {out}"),
        (constant, f"constant in training, so that {out}"),
        (unseen, f"not observed in any training trial, so that {out}"),
        (
            rare,
            f"fewer than {_RARE} counts in training, which say little of them; Trials.without_neurons leaves them out",
        ),
    )
    found = [f"neurons {listed(train.neuron_ids[which])}: {said}" for which, said in kinds if which.any()]
    return [*found, *_latent_notes(train, latent_sizes), *_input_notes(train)]


def _latent_notes(train: Trials, latent_sizes: Sequence[int]) -> list[str]:
    names, regions = train.region_names, train.region_of_neuron
    if len(latent_sizes) != len(names):
        names, regions = ["all"], np.zeros_like(regions)
    found = []
    for index, (name, size) in enumerate(zip(names, latent_sizes, strict=True)):
        # Neurons are sorted by region, and a view of some of them is not copied.
        first, last = np.searchsorted(regions, [index, index + 1])
        count, own = int(last - first), slice(first, last)
        if size >= max(count, 2):
            carried = f"{size} latents for {count} neurons"
        elif not _spans(train, own, size):
            carried = f"{size} latents, but its {count} neurons vary along fewer directions"
        else:
            continue
        found.append(f"region {name}: {carried}; what neurons do not carry stays noise, so give it fewer (-d)")
    return found


def _spans(train: Trials, own: slice, size: int) -> bool:
    """Whether signals of some neurons vary along at least ``size`` directions."""
    observed = train.observed[..., own]
    y = np.where(observed, train.y[..., own], 0.0).astype(float, copy=False)
    y -= y.sum((0, 1)) / np.maximum(observed.sum((0, 1)), 1)
    y[~observed] = 0.0
    # As many random sums of the neurons have the same rank, up to their number, and are quick to decompose.
    sums = y.reshape(-1, y.shape[-1]) @ np.random.default_rng(0).normal(size=(y.shape[-1], size))
    return bool(np.linalg.matrix_rank(sums) >= size)


def _input_notes(train: Trials) -> list[str]:
    if train.num_inputs == 0:
        return []
    valid = np.arange(train.num_bins) < train.lengths[:, None]
    spread = train.u[valid].std(0, dtype=float)
    smallest = spread[spread > 0].min(initial=np.inf)
    return [
        f"input {name}: its standard deviation is {size:.3g}; divide it by that, as inputs of a size near 1 fit best"
        for name, size in zip(train.input_names, spread, strict=True)
        if size > _LARGE or size > _APART * smallest
    ]


def _extremes(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest observed value of each neuron; infinite, and the first the larger, where there is none."""
    low = np.where(trials.observed, trials.y, np.inf).min((0, 1))
    return low, np.where(trials.observed, trials.y, -np.inf).max((0, 1))
