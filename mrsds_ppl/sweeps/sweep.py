"""The story of a sweep.

grid -> recording and configuration beside it -> a fit for each cell on Dask's workers -> results as they come -> the
rule's choice and one page
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from mrsds_ppl.config.arguments import FitOptions, config_for
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import split_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError, RunError
from mrsds_ppl.models.emissions.emissions import refused_of
from mrsds_ppl.storage.lock import locked
from mrsds_ppl.sweeps.cell_fit import Outcome, run_cell
from mrsds_ppl.sweeps.cells import Cell, Grid, make_grid
from mrsds_ppl.sweeps.choice import choose
from mrsds_ppl.sweeps.cluster import check_scheduler, connected
from mrsds_ppl.sweeps.files import SweepPaths, begin
from mrsds_ppl.sweeps.live import Results
from mrsds_ppl.sweeps.results import Sweep, gather
from mrsds_ppl.train.interrupts import answered, interruptible

if TYPE_CHECKING:
    from distributed import Client, Future

Say = Callable[[str], None]


class SweepOptions(TypedDict, total=False):
    """Where a sweep computes, what becomes of one of its name, and whether results are shown as they come.

    ``scheduler`` and ``workers``: see :func:`mrsds_ppl.sweeps.cluster.check_scheduler`; ``overwrite`` replaces a sweep
    of this name instead of going on with it.
    """

    scheduler: str
    workers: int | None
    overwrite: bool
    progress: bool


def sweep(
    trials: Trials,
    num_states: Iterable[int],
    latent_sizes: Iterable[int | Sequence[int]],
    *,
    seeds: int = 1,
    folds: int | None = None,
    save_to: str | Path | None = None,
    scheduler: str = "local",
    workers: int | None = None,
    progress: bool = True,
    **options: Unpack[FitOptions],
) -> Sweep:
    """Fit every number of states with every number of latents, side by side, and say what held-out trials ask for.

    A call that was stopped, or whose machine went down, goes on when it is made again with the same ``save_to``: cells
    that are done are not done again, and one that was half done goes on from its checkpoint. More states, latents or
    seeds than before add cells.

    Args:
        trials: the recording; a single trial is cut into pieces.
        num_states: numbers of discrete states, such as ``[1, 2, 3]``.
        latent_sizes: latent dimensions of each region, such as ``[2, 4]``; an entry may be a list, one for each.
        seeds: how often each is fitted, from seeds of model and training that count from ``seed`` on.
        folds: of a cross-validation, in which every trial (or block of pieces) is held out once; None for the one
            split of ``test``, or the folds of ``training``.
        save_to: folder and name of the sweep, such as ``results/mouse12``; without one the files go with the result.
        scheduler: ``local``, ``slurm``, or the address of a Dask scheduler, whose workers see the same files.
        workers: how many; by default as many as this machine has cores.
        progress: show results as they come.
        options: ``model``, ``guide``, ``start``, ``training``, ``test`` and ``seed`` as of :func:`mrsds_ppl.fit`.

    Raises:
        ConfigError, DataError: an argument or the recording is wrong; nothing was computed or written then.
        RunError: a sweep of this name is of something else, or no scheduler answers.
    """
    check_scheduler(scheduler, workers)
    grid = make_grid(num_states, latent_sizes, seeds, folds)
    trials = trials.in_pieces()
    first = grid.latent_sizes[0]
    config = config_for(
        grid.num_states[0],
        first if isinstance(first, int) else list(first),
        emission="poisson" if trials.holds_counts else "gaussian",
        **options,
    )
    if folds is None:
        grid = replace(grid, folds=config.training.split.folds)
    trials.validate(refused=refused_of(config.model.emissions, trials))
    say: Say = print if progress else lambda line: None
    own = tempfile.mkdtemp(prefix="mrsds-sweep-") if save_to is None else None
    place = Path(save_to) if save_to is not None else Path(own or "") / "sweep"
    with answered(say):
        paths = SweepPaths(place.parent, place.name)
        found = sweep_into_files(
            trials, config, grid, paths, say, scheduler=scheduler, workers=workers, progress=progress
        )
    return found if own is None else found.deleted_with_it()


def sweep_into_files(
    trials: Trials,
    config: RunConfig,
    grid: Grid,
    paths: SweepPaths,
    say: Say = print,
    **options: Unpack[SweepOptions],
) -> Sweep:
    """:func:`sweep` of a configuration.

    Args:
        trials, config: the recording and its configuration.
        grid: what is swept.
        paths: where the files go.
        say: prints a line for the user.
        options: see :class:`SweepOptions`.

    Raises:
        ConfigError, DataError, RunError: as of :func:`sweep`.
        KeyboardInterrupt: stopped; its message says how to go on.
    """
    scheduler, workers = options.get("scheduler", "local"), options.get("workers")
    check_scheduler(scheduler, workers)
    config = grid.configured(config)
    _check(trials, config, grid)
    with locked(paths.locked):
        begin(paths, config, grid, trials, overwrite=options.get("overwrite", False))
        cells = grid.cells
        left = [cell for cell in cells if not paths.result(cell).exists()]
        say(f"{paths.cells}: {len(cells)} cells, {len(cells) - len(left)} done before")
        with Results(paths, grid, say, visible=options.get("progress", True)) as results:
            for cell in cells:
                if cell not in left:
                    results.done_before(cell)
            if left:
                try:
                    with interruptible(), connected(scheduler, workers, len(left), say) as client:
                        _run(client, paths, config, left, results)
                except KeyboardInterrupt:
                    raise KeyboardInterrupt(
                        "stopped; the same command goes on with the cells that are not done"
                    ) from None
        found = gather(paths, config, grid, trials, results.failed)
        found.save(paths.results)
        found.report(paths.page)
    for line in last_lines(found):
        say(line)
    return found


def last_lines(found: Sweep) -> list[str]:
    """What is said at the end."""
    choice, lines = choose(found.cells), []
    for name, error in found.failed.items():
        lines.append(f"failed: {name}: {error}")
    if choice is None:
        lines.append("no choice: no number of states and latents has finite evidence of all held-out trials")
    else:
        lines.append(f"smallest within two standard errors of the best ({choice.best}): {choice.chosen}")
    return [*lines, f"{found.paths.page}, {found.paths.results}"]


def _check(trials: Trials, config: RunConfig, grid: Grid) -> None:
    """Raise ConfigError or DataError for what every worker would stumble over."""
    config.model.emissions.of_regions(trials.region_names)
    regions = len(trials.region_sizes)
    for size in grid.latent_sizes:
        if not isinstance(size, int) and len(size) != regions:
            raise ConfigError(f"latent_sizes: found {list(size)}, but the recording has {regions} regions")
    for fold in range(grid.folds or 1):
        split_of(Cell(1, 1, 0, fold).configured(config, ""), trials)


def _run(client: "Client", paths: SweepPaths, config: RunConfig, cells: Sequence[Cell], results: Results) -> None:
    """Fit the cells on the workers of a client, and take what comes as it comes."""
    from distributed import as_completed

    absolute = SweepPaths(paths.folder.absolute(), paths.name)

    futures: dict[Future, Cell] = {}
    for place, cell in enumerate(cells):
        # One key for one cell: a scheduler that still fits it for a command that was stopped does not begin it twice.
        key = f"{cell.name}-{absolute.cells}"
        futures[client.submit(run_cell, absolute, config, cell, key=key, priority=-place, retries=1)] = cell
    for future in as_completed(futures, loop=client.loop):
        if future.cancelled():
            raise RunError("the scheduler went away; the same command goes on with the cells that are not done")
        error = future.exception()
        results.add(future.result() if error is None else Outcome(futures[future], _what_happened(error)))


def _what_happened(error: BaseException) -> str:
    """In a sentence, what no error of this package tells."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            f"its worker died {error.allowed_failures + 1} times, as where memory runs out; fewer --workers leave each "
            "more memory. The same command tries again"
        )
    return f"{type(error).__name__}: {error}"
