"""The cells of a sweep: each is a fit of its own, with its number of states, its latents, its seed and its fold."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.names import RECORDING
from mrsds_ppl.config.sections import DataConfig
from mrsds_ppl.errors import ConfigError

Size: TypeAlias = int | tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One fit: K, latents of each region (one number for all), number of the seed, number of the fold."""

    num_states: int
    latent_size: Size
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """Name of its run, such as ``k2-d3-s0-f1``."""
        return f"k{self.num_states}-d{size_label(self.latent_size).replace(',', '.')}-s{self.seed}-f{self.fold}"

    def configured(self, config: RunConfig, recording: str) -> RunConfig:
        """The configuration of its run.

        The data seed is that of the sweep, so that all seeds have the same test trials.

        Args:
            config: of the sweep.
            recording: file of the trials, as the run's configuration names it.
        """
        training, seeds = config.training, config.training.seeds
        training = replace(
            training,
            seeds=replace(seeds, model=seeds.model + self.seed, train=seeds.train + self.seed),
            split=replace(training.split, fold=self.fold),
        )
        return config.model_copy(
            update={
                "data": DataConfig(data_source=RECORDING, data_path=recording),
                "model": replace(config.model, num_states=self.num_states, latent_sizes=self.latent_size),
                "training": training,
            }
        )


@dataclass(frozen=True)
class Grid:
    """What is swept: every number of states with every size, from ``seeds`` seeds, in each of the folds.

    ``folds`` None stands for the one split of ``training.split.test_perc``.
    """

    num_states: tuple[int, ...]
    latent_sizes: tuple[Size, ...]
    seeds: int
    folds: int | None

    @property
    def cells(self) -> list[Cell]:
        """All cells. Every shape comes once before any comes again: a first picture is there early, compiled once."""
        return [
            Cell(states, size, seed, fold)
            for seed in range(self.seeds)
            for fold in range(self.folds or 1)
            for states in self.num_states
            for size in self.latent_sizes
        ]

    @property
    def size_labels(self) -> list[int] | list[str]:
        """The sizes as coordinates: numbers, or text where one of them has a number for each region."""
        numbers = [size for size in self.latent_sizes if isinstance(size, int)]
        return numbers if len(numbers) == len(self.latent_sizes) else [size_label(size) for size in self.latent_sizes]

    def place(self, cell: Cell) -> tuple[int, int, int, int]:
        """Where a cell stands along the axes states, size, seed and fold."""
        return self.num_states.index(cell.num_states), self.latent_sizes.index(cell.latent_size), cell.seed, cell.fold

    def configured(self, config: RunConfig) -> RunConfig:
        """The configuration of the sweep: what is swept stands at its first value."""
        training = replace(config.training, split=replace(config.training.split, folds=self.folds, fold=0))
        model = replace(config.model, num_states=self.num_states[0], latent_sizes=self.latent_sizes[0])
        return config.model_copy(update={"model": model, "training": training})

    def described(self) -> dict[str, Any]:
        """The grid in plain values, for a file."""
        sizes = [size if isinstance(size, int) else list(size) for size in self.latent_sizes]
        return {
            "num_states": list(self.num_states),
            "latent_sizes": sizes,
            "seeds": self.seeds,
            "folds": self.folds,
        }


def size_label(size: Size) -> str:
    """``3``, or ``3,2`` for a number of latents of each region."""
    return str(size) if isinstance(size, int) else ",".join(map(str, size))


def make_grid(num_states: object, latent_sizes: object, seeds: int, folds: int | None) -> Grid:
    """The grid that a user asks for.

    Args:
        num_states: numbers of states, a list.
        latent_sizes: a list of latents of each region, one number for all, or a list with one for each.
        seeds: how often each is fitted.
        folds: of the cross-validation; None for one split.

    Raises:
        ConfigError: a value is no whole number of at least 1, is given twice, or there is none.
    """
    states = _several("num_states", num_states)
    given = _several("latent_sizes", latent_sizes)
    sizes = [tuple(size) if isinstance(size, list | tuple) else size for size in given]
    if () in sizes:
        raise ConfigError("latent_sizes: found an empty list; allowed: a number, or one for each region")
    every = [number for size in sizes for number in (size if isinstance(size, tuple) else (size,))]
    for name, numbers in (("num_states", states), ("latent_sizes", every), ("seeds", [seeds])):
        if wrong := [number for number in numbers if type(number) is not int or number < 1]:
            raise ConfigError(f"{name}: found {wrong[0]!r}; allowed: whole numbers of at least 1")
    if folds is not None and folds < 2:
        raise ConfigError(f"folds: found {folds}; allowed: a whole number of at least 2, or None for one split")
    for name, values in (("num_states", states), ("latent_sizes", sizes)):
        if len(set(values)) < len(values):
            raise ConfigError(f"{name}: found {values}; give each value once")
    return Grid(tuple(states), tuple(sizes), seeds, folds)


def _several(name: str, given: object) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"{name}: found {given!r}; allowed: a list, such as [1, 2, 3]")
    found = [value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else value for value in given]
    if not found:
        raise ConfigError(f"{name}: found an empty list; allowed: at least one value")
    return found
