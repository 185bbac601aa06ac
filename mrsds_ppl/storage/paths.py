"""Where the files of a run are."""

from dataclasses import dataclass
from pathlib import Path

from mrsds_ppl.errors import RunError


@dataclass(frozen=True)
class NamedFiles:
    """Files of a folder whose names begin alike."""

    folder: Path
    name: str

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"


class RunPaths(NamedFiles):
    """Names of a run's files."""

    @property
    def log(self) -> Path:
        return self._file("-log.txt")

    @property
    def config(self) -> Path:
        return self._file("-config.yaml")

    @property
    def scalars(self) -> Path:
        return self._file("-logs")

    @property
    def checkpoints(self) -> Path:
        return self._file("-models")

    @property
    def dynamics_checkpoints(self) -> Path:
        """Checkpoints of the stage that trains the dynamics only."""
        return self._file("-models-do")

    @property
    def restart_checkpoints(self) -> Path:
        """Checkpoints of all restarts together; the best one's go where those of a single run go."""
        return self._file("-models-restarts")

    @property
    def mat(self) -> Path:
        return self._file("_latents.mat")

    @property
    def posterior(self) -> Path:
        return self._file("_posterior.nc")

    @property
    def trials(self) -> Path:
        """The recording, where it came from memory."""
        return self._file("-data.nc")

    @property
    def lock(self) -> Path:
        """Held by the command that writes the run."""
        return self._file(".lock")

    @property
    def report(self) -> Path:
        return self._file("_report.html")


CONFIG_ENDING = RunPaths(Path(), "").config.name


def run_endings() -> tuple[str, ...]:
    """What follows NAME in the names of a run's files; the longer of two that end alike comes first."""
    blank = RunPaths(Path(), "")
    properties = [name for name, value in vars(RunPaths).items() if isinstance(value, property)]
    return tuple(sorted((getattr(blank, name).name for name in properties), key=len, reverse=True))


def find_run(given: str | Path) -> RunPaths:
    """The run that a user means by ``DIR/NAME``, by any one of its files, or by a ``DIR`` that holds exactly one.

    Raises:
        RunError: there is no such run, or several; what was found is named.
    """
    path = Path(given).expanduser()
    if _config_of(path).is_file():
        return RunPaths(path.parent, path.name)
    for ending in run_endings():
        prefix = path.with_name(path.name.removesuffix(ending)) if path.name.endswith(ending) else None
        if prefix is not None and prefix.name and _config_of(prefix).is_file():
            return RunPaths(prefix.parent, prefix.name)
    folder = path if path.is_dir() else path.parent
    found = _runs_in(folder)
    if path.is_dir() and len(found) == 1:
        return RunPaths(path, found[0])
    remedy = "give a run as DIR/NAME, as one of its files, or as a folder that holds exactly one"
    if path.is_dir() and found:
        raise RunError(f"{path}: holds {len(found)} runs ({', '.join(found)}); {remedy}.")
    if not folder.is_dir():
        raise RunError(f"{path}: no such run, and no folder {folder}; {remedy}.")
    raise RunError(
        f"{path}: no such run; {folder} holds {', '.join(found) or f'none (no *{CONFIG_ENDING})'}; {remedy}."
    )


def _config_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}{CONFIG_ENDING}") if prefix.name else prefix / CONFIG_ENDING


def _runs_in(folder: Path) -> list[str]:
    return sorted(p.name.removesuffix(CONFIG_ENDING) for p in folder.glob(f"*{CONFIG_ENDING}"))
