"""The files of a sweep, and whether it may begin, or go on, under its name."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mrsds_ppl.config.loading import VERSIONS, RunConfig, config_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import write_trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.output.guard import DATA_DIGEST, changed_settings
from mrsds_ppl.storage.atomic import write_text, written_aside
from mrsds_ppl.storage.paths import NamedFiles, RunPaths
from mrsds_ppl.sweeps.cells import Cell, Grid

RECORDING_FILE = "recording.nc"
_GRID = "sweep"
_PACKAGES = ("mrsds-ppl", "jax", "jaxlib", "numpyro", "equinox", "optax", "numpy", "scipy")


class SweepPaths(NamedFiles):
    """Names of a sweep's files."""

    def run(self, cell: Cell) -> RunPaths:
        """The files of the fit of a cell."""
        return RunPaths(self.cells, cell.name)

    def result(self, cell: Cell) -> Path:
        """What the sweep needs of a cell; the cell is done where this file is."""
        return self.cells / f"{cell.name}-cell.nc"

    @property
    def description(self) -> Path:
        """Configuration, grid, versions and digest of the recording."""
        return self._file("-sweep.yaml")

    @property
    def results(self) -> Path:
        """The numbers of all cells."""
        return self._file("-sweep.nc")

    @property
    def page(self) -> Path:
        """What they say, to be read."""
        return self._file("-sweep.html")

    @property
    def cells(self) -> Path:
        """Folder of the recording and of the runs of all cells."""
        return self._file("-sweep")

    @property
    def recording(self) -> Path:
        """The trials, which every worker reads once."""
        return self.cells / RECORDING_FILE

    @property
    def locked(self) -> RunPaths:
        """What a command that writes the sweep holds the lock of."""
        return RunPaths(self.folder, f"{self.name}-sweep")


def begin(paths: SweepPaths, config: RunConfig, grid: Grid, trials: Trials, *, overwrite: bool) -> None:
    """Write what a sweep is of, or see that the one of this name may go on as that.

    Args:
        paths: where its files are; the lock is held.
        config: of the sweep, with its folds.
        grid: what is swept; another one than before adds cells.
        trials: the recording.
        overwrite: remove a sweep of this name.

    Raises:
        RunError: the sweep of this name has other settings or another recording, or the folder holds something else.
    """
    if not paths.description.exists() and paths.cells.exists():
        raise RunError(
            f"{paths.cells}: there is such a folder, and it is no sweep's. Move it, or give another name (--name)."
        )
    if paths.description.exists() and overwrite:
        # The description last: as long as it is there, the folder is a sweep's.
        shutil.rmtree(paths.cells, ignore_errors=True)
        for path in (paths.results, paths.page, paths.description):
            path.unlink(missing_ok=True)
    if paths.description.exists():
        _demand_same_sweep(paths, config, trials)
    about = {**{name: version(name) for name in _PACKAGES}, DATA_DIGEST: trials.digest}
    described = {_GRID: grid.described(), **config.model_dump(mode="json"), VERSIONS: about}
    write_text(paths.description, yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    if not paths.recording.exists():
        with written_aside(paths.recording) as aside:
            write_trials(aside, trials)


def read_description(paths: SweepPaths) -> tuple[RunConfig, dict[str, Any], dict[str, Any]]:
    """Configuration, grid and versions of a sweep.

    Raises:
        RunError: there is no sweep of this name.
        ConfigError: the file was edited, and cannot be read any more.
    """
    try:
        values = yaml.safe_load(paths.description.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{paths.description}: no such file, so there is no sweep of this name.") from None
    grid, about = values.pop(_GRID), values.pop(VERSIONS)
    return config_of(values, folder=paths.folder), grid, about


def _demand_same_sweep(paths: SweepPaths, config: RunConfig, trials: Trials) -> None:
    before, _, about = read_description(paths)
    remedy = "Go on with it as it was begun, start it anew (--overwrite), or give another name (--name)."
    if about.get(DATA_DIGEST) != trials.digest:
        raise RunError(
            f"{paths.description}: the sweep was begun with another recording (digest {about.get(DATA_DIGEST)}, found "
            f"{trials.digest}). {remedy}"
        )
    # Where the recording lies and how it is read has said its digest; numbers of states and latents are swept.
    free = ("data.", "model.num_states", "model.latent_sizes")
    if changed := changed_settings(before, config, free):
        raise RunError(f"{paths.description}: the sweep was begun with other settings: {changed}. {remedy}")
