"""``mrsds sweep``: from a configuration to the files of a sweep."""

from collections.abc import Callable, Sequence
from typing import Unpack

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import make_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import UnfinishedError, listed
from mrsds_ppl.sweeps.cells import make_grid
from mrsds_ppl.sweeps.cluster import check_scheduler
from mrsds_ppl.sweeps.files import SweepPaths
from mrsds_ppl.sweeps.results import Sweep
from mrsds_ppl.sweeps.sweep import SweepOptions, sweep_into_files


def sweep(
    config: RunConfig,
    trials: Trials | None,
    num_states: Sequence[int],
    latent_sizes: Sequence[int],
    paths: SweepPaths,
    *,
    seeds: int,
    folds: int | None,
    log: Callable[[str], None] = print,
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Fit all cells of a grid that are not done yet, and write the files of the sweep.

    Args:
        config: the validated configuration.
        trials: its recording, where that was read already.
        num_states, latent_sizes: what is swept, see :func:`mrsds_ppl.sweeps.cells.make_grid`.
        paths: where the files go.
        seeds, folds: the same; a number of folds in the configuration is taken where none is given.
        log: prints a line for the user.
        options: see :class:`mrsds_ppl.sweeps.sweep.SweepOptions`.

    Raises:
        ConfigError, DataError, RunError: nothing is written then.
        UnfinishedError: some cells failed; the files of the sweep are written.
    """
    check_scheduler(options.get("scheduler", "local"), options.get("workers"))
    grid = make_grid(num_states, latent_sizes, seeds, config.training.split.folds if folds is None else folds)
    found = sweep_into_files(
        make_trials(config) if trials is None else trials,
        config,
        grid,
        paths,
        log,
        **options,
    )
    if found.failed:
        raise UnfinishedError(
            f"{paths.cells}: {len(found.failed)} of {len(grid.cells)} cells failed "
            f"({listed(found.failed)}); see above, or the page. The same command tries them again."
        )
    return found
