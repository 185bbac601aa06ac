"""``Sweep``: what a sweep found, gathered from the files of its cells."""

import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import split_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.fitted import Fit
from mrsds_ppl.storage.atomic import write_text, written_aside
from mrsds_ppl.sweeps.cells import Cell, Grid
from mrsds_ppl.sweeps.choice import Shape, choose, compared, counted_seeds, shape_named
from mrsds_ppl.sweeps.files import SweepPaths
from mrsds_ppl.sweeps.measures import message_agreement, state_agreement

_SHAPE, _CELL = ("num_states", "latent_size"), ("num_states", "latent_size", "seed", "fold")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Results of a sweep.

    ``cells`` is a dataset with the coordinates num_states, latent_size, seed, fold and trial: ``evidence`` of each
    held-out trial in nats, whose fold is the coordinate ``trial_fold``; ``bound`` of the training trials in nats per
    observed value, ``seconds`` and ``peak_memory`` (MB) of each cell; ``variance_explained`` by each latent of a
    region, largest first; ``state_agreement`` and ``message_agreement`` of seeds. NaN where a cell was not fitted.
    ``failed`` says why, by the name of the cell.
    """

    cells: xr.Dataset
    paths: SweepPaths
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> xr.Dataset:
        """One row for each number of states and latents; see :func:`mrsds_ppl.sweeps.choice.compared`."""
        return compared(self.cells)

    @property
    def chosen(self) -> Shape | None:
        """The smallest within two standard errors of the best; None where no shape is complete."""
        choice = choose(self.cells)
        return None if choice is None else shape_named(self.cells, choice.chosen)

    def fit(self, num_states: int, latent_size: int | str, *, seed: int | None = None, fold: int = 0) -> Fit:
        """The fit of a cell.

        Args:
            num_states, latent_size: as they stand along the axes of ``cells``.
            seed: its number; by default the one that counts, of the highest bound.
            fold: number of the fold that was held out.

        Raises:
            RunError: there is no such cell, or it was not fitted.
        """
        try:
            one = self.cells.bound.sel(num_states=num_states, latent_size=latent_size, fold=fold)
            place = [list(self.cells[name].values).index(one[name]) for name in ("num_states", "latent_size", "fold")]
            number = int(counted_seeds(self.cells)[tuple(place)]) if seed is None else seed
            known = number >= 0 and bool(np.isfinite(one.sel(seed=number)))
        except (KeyError, ValueError):
            known, number = False, -1
        size = tuple(map(int, latent_size.split(","))) if isinstance(latent_size, str) else latent_size
        size = size[0] if isinstance(size, tuple) and len(size) == 1 else size
        cell = Cell(num_states, size, number, fold)
        if not known:
            raise RunError(f"cell of {Shape(num_states, latent_size)}, seed {seed}, fold {fold}: was not fitted.")
        return Fit.load(self.paths.cells / cell.name)

    def save(self, path: str | Path) -> Path:
        """Write ``cells`` as a netCDF file."""
        path = Path(path)
        with written_aside(path) as aside:
            self.cells.to_netcdf(aside, engine="h5netcdf")
        return path

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page."""
        import matplotlib as mpl

        from mrsds_ppl.sweeps.page import sweep_page

        path = Path(path)
        # As for the page of a fit: figures go to the page alone, and a user's own settings change no sizes.
        with mpl.rc_context({**mpl.rcParamsDefault, "backend": "agg"}):
            write_text(path, sweep_page(self.cells, self.paths.name, self.failed))
        return path

    def __repr__(self) -> str:
        sizes = " x ".join(f"{self.cells.sizes[name]} {name}" for name in _CELL)
        done = int(self.cells.bound.notnull().sum())
        return (
            f"<Sweep {self.paths.name}: {sizes}; {done} cells done, {len(self.failed)} failed; chosen: {self.chosen}>"
        )

    def deleted_with_it(self) -> "Sweep":
        """The same, whose folder is deleted when nobody holds it any more."""
        weakref.finalize(self, shutil.rmtree, self.paths.folder, ignore_errors=True)
        return self


def gather(paths: SweepPaths, config: RunConfig, grid: Grid, trials: Trials, failed: Mapping[str, str]) -> Sweep:
    """The results of the cells that are done.

    Args:
        paths, config, grid, trials: of the sweep.
        failed: what went wrong with other cells, by name.

    Raises:
        RunError: the file of a cell is damaged.
    """
    shape, num_folds = (len(grid.num_states), len(grid.latent_sizes)), grid.folds or 1
    cell_shape = (*shape, grid.seeds, num_folds)
    held_out = [
        split_of(Cell(grid.num_states[0], grid.latent_sizes[0], 0, fold).configured(config, ""), trials).test.ids
        for fold in range(num_folds)
    ]
    fold_of = {number: fold for fold, ids in enumerate(held_out) for number in ids.tolist()}
    ids = np.array([number for number in trials.ids.tolist() if number in fold_of])
    place = {number: i for i, number in enumerate(ids.tolist())}
    found = {cell: read_cell(paths.result(cell)) for cell in grid.cells if paths.result(cell).exists()}
    some = next(iter(found.values()), None)
    regions = [] if some is None else some.region.values
    widest = max((one.sizes["component"] for one in found.values()), default=0)
    values = {name: np.full(cell_shape, np.nan) for name in ("bound", "seconds", "peak_memory")}
    evidence = np.full((*cell_shape[:3], len(ids)), np.nan)
    explained = np.full((*cell_shape, len(regions), widest), np.nan)
    parameters = np.full(shape, np.nan)
    for cell, one in found.items():
        at = grid.place(cell)
        for name, array in values.items():
            array[at] = one.attrs[name]
        parameters[at[:2]] = one.attrs["parameters"]
        evidence[at[:3]][[place[number] for number in one.trial.values.tolist()]] = one.evidence.values
        explained[at][:, : one.sizes["component"]] = one.variance_explained.values
    agreements = np.full((2, *shape, num_folds), np.nan)
    for k, states in enumerate(grid.num_states):
        for d, size in enumerate(grid.latent_sizes):
            for fold in range(num_folds):
                cells = [Cell(states, size, seed, fold) for seed in range(grid.seeds)]
                several = [found[cell] for cell in cells if cell in found]
                if len(several) > 1:
                    lengths = several[0].lengths.values
                    agreements[0, k, d, fold] = state_agreement([o.states.values for o in several], states, lengths)
                    agreements[1, k, d, fold] = message_agreement([o.norms.values for o in several], lengths)
    cells_found = xr.Dataset(
        {
            "evidence": ((*_CELL[:3], "trial"), evidence, {"units": "nats"}),
            "bound": (_CELL, values["bound"], {"units": "nats per observed value, training trials"}),
            "seconds": (_CELL, values["seconds"], {"units": "s"}),
            "peak_memory": (_CELL, values["peak_memory"], {"units": "MB"}),
            "parameters": (_SHAPE, parameters),
            "variance_explained": ((*_CELL, "region", "component"), explained),
            "state_agreement": ((*_SHAPE, "fold"), agreements[0]),
            "message_agreement": ((*_SHAPE, "fold"), agreements[1]),
        },
        {
            "num_states": list(grid.num_states),
            "latent_size": grid.size_labels,
            "seed": np.arange(grid.seeds),
            "fold": np.arange(num_folds),
            "trial": ids,
            "trial_fold": ("trial", [fold_of[number] for number in ids.tolist()]),
            "region": regions,
            "component": np.arange(widest),
        },
    )
    return Sweep(cells_found, paths, dict(failed))


def read_cell(path: Path) -> xr.Dataset:
    """What a worker wrote of a cell. Raises RunError where the file is damaged."""
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: is damaged ({error}). Remove it; the same command fits this cell again.") from error
