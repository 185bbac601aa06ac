"""Where the files of a run are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Names of a run's files."""

    folder: Path
    name: str

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"

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
    def report(self) -> Path:
        return self._file("_report.html")


CONFIG_ENDING = RunPaths(Path(), "").config.name


def run_endings() -> tuple[str, ...]:
    """What follows NAME in the names of a run's files; the longer of two that end alike comes first."""
    blank = RunPaths(Path(), "")
    properties = [name for name, value in vars(RunPaths).items() if isinstance(value, property)]
    return tuple(sorted((getattr(blank, name).name for name in properties), key=len, reverse=True))
