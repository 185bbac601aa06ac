"""What the processes of the comparison hand to each other, in numpy alone: the recording, and what was found of it.

A peer's process is given the recording and a folder. It writes what it finds of the test trials there, on the way and
at the end, each with the seconds that it has taken so far.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Exit status of a peer that is not installed, or only in a version that lacks what is needed.
NOT_INSTALLED = 3


class Part(NamedTuple):
    """Trials of unequal length: counts (time, neuron) and inputs (time, input) of each."""

    y: list[np.ndarray]
    u: list[np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(y) for y in self.y])


class Recording(NamedTuple):
    """Training and test trials, and what every peer is told."""

    train: Part
    test: Part
    region_sizes: np.ndarray
    latents: int  # of each region
    states: int
    seed: int


def write_recording(path: Path, recording: Recording) -> None:
    """One file, trials end to end."""
    arrays = {
        f"{name}_{field}": np.concatenate(getattr(part, field))
        for name, part in (("train", recording.train), ("test", recording.test))
        for field in ("y", "u")
    }
    lengths = {f"{name}_lengths": getattr(recording, name).lengths for name in ("train", "test")}
    rest = {name: getattr(recording, name) for name in ("region_sizes", "latents", "states", "seed")}
    np.savez(path, **arrays, **lengths, **rest)


def read_recording(path: Path) -> Recording:
    """What :func:`write_recording` wrote."""
    with np.load(path) as file:
        parts = []
        for name in ("train", "test"):
            ends = np.cumsum(file[f"{name}_lengths"])[:-1]
            parts.append(Part(*(np.split(file[f"{name}_{field}"], ends) for field in ("y", "u"))))
        rest = (int(file[name]) for name in ("latents", "states", "seed"))
        return Recording(*parts, file["region_sizes"], *rest)


class Found(NamedTuple):
    """Latents (bin, latent) and probabilities of the states (bin, state) of the test trials, trials end to end.

    ``seconds`` of computing since the process began, ``clock`` those of a clock, evaluation on the way left out.
    """

    after: str
    x: np.ndarray
    z: np.ndarray
    seconds: float
    clock: float


class Findings:
    """Writes what is found, in order, and keeps the time; evaluations on the way do not count.

    Args:
        folder: where it goes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._began, self._away, self._away_clock = time.perf_counter(), 0.0, 0.0

    def now(self) -> tuple[float, float]:
        """Seconds of computing and of a clock so far."""
        return time.process_time() - self._away, time.perf_counter() - self._began - self._away_clock

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """What is computed inside does not count."""
        before, clock = time.process_time(), time.perf_counter()
        yield
        self._away += time.process_time() - before
        self._away_clock += time.perf_counter() - clock

    def write(self, after: str, x: list[np.ndarray], z: list[np.ndarray], when: tuple[float, float]) -> None:
        """Keep what was found after so much of the fit, ``when`` it was known."""
        path = self._folder / f"{self._number:03d}.npz"
        np.savez(path, after=after, x=np.concatenate(x), z=np.concatenate(z), seconds=when[0], clock=when[1])
        self._number += 1


def read_findings(folder: Path) -> list[Found]:
    """What a peer wrote, in order of time."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            numbers = float(file["seconds"]), float(file["clock"])
            found.append(Found(str(file["after"]), file["x"], file["z"], *numbers))
    return sorted(found, key=lambda one: one.seconds)


def given() -> tuple[Recording, Findings]:
    """What the command line of a peer's process names: the recording and the folder of findings."""
    return read_recording(Path(sys.argv[1])), Findings(Path(sys.argv[2]))


def leave(why: str) -> None:
    """End the process of a peer that cannot be used here."""
    print(why, file=sys.stderr)
    sys.exit(NOT_INSTALLED)
