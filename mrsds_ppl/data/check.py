"""Whether trials can be read by what was fitted to others."""

from collections.abc import Sequence

import numpy as np

from mrsds_ppl.data.signals import Refused
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError


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
    for what, names, known in (
        ("regions", trials.region_names, fitted.region_names),
        ("inputs", trials.input_names, fitted.input_names),
        ("neurons", trials.neuron_ids.tolist(), fitted.neuron_ids.tolist()),
    ):
        if names != known and set(names) == set(known):
            raise DataError(
                f"{what}: found those of the fit in another order: {names[:5]}, but the fit has {known[:5]}."
            )
    if not np.isclose(trials.bin_width, fitted.bin_width):
        raise DataError(
            f"bin_width: found bins of {trials.bin_width:g} s, but the fit is of bins of "
            f"{fitted.bin_width:g} s, and its dynamics go from bin to bin. Bin the recording anew."
        )
    if not trials.observed.any():
        raise DataError("ys: no value of any trial is observed, so there is nothing to infer from.")
    # Whoever fits needs every neuron at least once; whoever infers does not.
    seen = trials.observed.any((0, 1))
    filled = trials.dataset.assign(
        y=trials.dataset["y"].where(seen, 0.0), observed=trials.dataset["observed"].where(seen, True)
    )
    Trials(filled).validate(refused=refused)


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
