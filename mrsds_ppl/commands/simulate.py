"""Trials of a simulator as a recording on disk: the story of ``mrsds simulate``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from mrsds_ppl.config.loading import reject_unknown
from mrsds_ppl.data.simulate import SIMULATORS, simulation_options
from mrsds_ppl.errors import RunError
from mrsds_ppl.storage.atomic import written_aside


def simulate(
    simulator: str, out: Path, *, seed: int, options: dict[str, Any], log: Callable[[str], None] = print
) -> None:
    """Write trials of a simulator to a ``.npz`` or ``.mat`` file that ``fit`` reads.

    Args:
        simulator: its name.
        out: the file, ending in ``.npz`` or ``.mat``.
        seed: of the simulation.
        options: further arguments of the simulator.
        log: prints a line for the user.

    Raises:
        ConfigError, RunError: a wrong option or file name.
    """
    if out.suffix not in (".npz", ".mat"):
        raise RunError(f"{out}: allowed endings are .npz and .mat")
    reject_unknown("--set", options, simulation_options(simulator))
    trials = SIMULATORS[simulator](seed, **options)
    arrays: dict[str, Any] = {
        "ys": trials.y,
        "us": trials.u,
        "region_sizes": np.array(trials.region_sizes),
        "lengths": trials.lengths,
    }
    arrays |= {"region_names": np.array(trials.region_names), "bin_width": np.array(trials.bin_width)}
    arrays |= {name: value for name, value in (("x", trials.x), ("z", trials.z)) if value is not None}
    with written_aside(out) as aside:
        if out.suffix == ".npz":
            with open(aside, "wb") as file:
                np.savez_compressed(file, **arrays)
        else:
            scipy.io.savemat(aside, arrays, appendmat=False, do_compression=True)
    log(f"{out}: {trials.num_trials} trials x {trials.num_bins} bins, {sum(trials.region_sizes)} neurons")
