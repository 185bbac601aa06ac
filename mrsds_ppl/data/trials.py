"""Trials: the one data container."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.ragged import beside, matrix, one_hot, pad, trial_list, whole
from mrsds_ppl.data.signals import NOT_COUNTS, Refused
from mrsds_ppl.errors import DataError


@dataclass(frozen=True)
class Trials:
    """Simultaneous recordings of several regions, padded to the longest trial, with what is known beside them.

    ``dataset`` is an xarray Dataset with y and observed (trial, time, neuron), u (trial, time, input), stage (trial,
    time, stage), lengths (trial), and of simulations x (trial, time, latent), z (trial, time) and messages (trial,
    time, target, source, latent of the target); coordinates: id and number of each trial, time in seconds, region and
    name of each neuron. NaN in y is missing.
    """

    dataset: xr.Dataset

    @classmethod
    def from_arrays(
        cls,
        ys: object,
        us: object = None,
        region_sizes: Sequence[int] | None = None,
        *,
        region_names: Sequence[str] | None = None,
        bin_width: float = 1.0,
        stages: object = None,
        x: object = None,
        z: object = None,
        messages: object = None,
        labels: Sequence[Any] | None = None,
    ) -> "Trials":
        """Trials from lists of arrays, one a trial, or from arrays with a leading trial axis.

        Args:
            ys: (time, neuron) of each trial: signals or counts per bin; NaN where missing.
            us: (time, input) of each trial.
            region_sizes: neurons of each region, in the order of ys; default one region.
            region_names: default ``region0``, ``region1``, ...
            bin_width: seconds.
            stages: trial stage of each bin, (time,) integers or (time, stage) one-hot.
            x, z, messages: true latents (time, latent), states (time,) and messages of a simulation.
            labels: condition of each trial.

        Raises:
            DataError: no trials, shapes that do not fit (the trial is named), sizes that do not add up.
        """
        signals = [matrix(y, "ys", i) for i, y in enumerate(trial_list(ys, "ys"))]
        lengths = np.array([len(y) for y in signals])
        if lengths.min() == 0:
            raise DataError(f"ys: trial {int(lengths.argmin())} has no bins. Leave empty trials out.")
        num_neurons = signals[0].shape[1]
        for i, y in enumerate(signals):
            if y.shape[1] != num_neurons:
                raise DataError(
                    f"ys: trial {i} has {y.shape[1]} neurons and trial 0 has {num_neurons}. "
                    "Every trial needs the same neurons; fill those not recorded with NaN."
                )
        sizes = [num_neurons] if region_sizes is None else [int(n) for n in np.ravel(region_sizes)]
        if sum(sizes) != num_neurons or min(sizes) < 1:
            raise DataError(
                f"region_sizes: {sizes} add up to {sum(sizes)}, but ys has {num_neurons} neurons. "
                "Give the number of neurons of each region, at least one each, in the order of the columns of ys."
            )
        names = [f"region{r}" for r in range(len(sizes))] if region_names is None else [str(n) for n in region_names]
        if len(names) != len(sizes):
            raise DataError(f"region_names: found {len(names)} names for {len(sizes)} regions: {names}.")
        if not 0 < bin_width < np.inf:
            raise DataError(f"bin_width: found {bin_width}, need a positive number of seconds.")
        y = pad(signals, np.nan)
        arrays: dict[str, Any] = {
            "y": (("trial", "time", "neuron"), y),
            "observed": (("trial", "time", "neuron"), ~np.isnan(y)),
            "lengths": ("trial", lengths),
            "u": (("trial", "time", "input"), beside(us, "us", lengths, 2, 0.0)),
            "stage": (("trial", "time", "stage_kind"), one_hot(stages, lengths)),
        }
        if x is not None:
            arrays["x"] = (("trial", "time", "latent"), beside(x, "x", lengths, 2, np.nan))
        if z is not None:
            arrays["z"] = (("trial", "time"), whole(beside(z, "z", lengths, 1, -1.0), "z", lengths).astype(int))
        if messages is not None:
            # The latents of the target alone: not the axis of x, which has those of every region.
            axes = ("trial", "time", "target", "source", "target_latent")
            arrays["messages"] = (axes, beside(messages, "messages", lengths, 4, np.nan))
        region = np.repeat(names, sizes)
        coords = {
            "trial": np.arange(len(signals)),
            "number": ("trial", np.arange(len(signals), dtype=np.int32)),
            "time": np.arange(y.shape[1]) * bin_width,
            "neuron": [f"{n}:{i}" for n, size in zip(names, sizes, strict=True) for i in range(size)],
            "region": ("neuron", region),
        }
        if labels is not None:
            if len(labels) != len(signals):
                raise DataError(f"labels: found {len(labels)}, but ys has {len(signals)} trials; need one a trial.")
            coords["label"] = ("trial", np.asarray(labels))
        attrs = {"region_sizes": sizes, "region_names": names, "bin_width": float(bin_width)}
        return cls(xr.Dataset(arrays, coords, attrs))

    @cached_property
    def y(self) -> np.ndarray:
        """(trial, time, neuron), NaN where missing or padded."""
        return self.dataset["y"].values

    @cached_property
    def observed(self) -> np.ndarray:
        """(trial, time, neuron), False where missing or padded."""
        return self.dataset["observed"].values

    @cached_property
    def u(self) -> np.ndarray:
        """(trial, time, input), zero in padding."""
        return self.dataset["u"].values

    @cached_property
    def stage(self) -> np.ndarray:
        """(trial, time, stage), one-hot."""
        return self.dataset["stage"].values

    @cached_property
    def lengths(self) -> np.ndarray:
        """(trial,), valid bins."""
        return self.dataset["lengths"].values

    @property
    def x(self) -> np.ndarray | None:
        """True latents (trial, time, latent) of a simulation, NaN in padding."""
        return self.dataset["x"].values if "x" in self.dataset else None

    @property
    def z(self) -> np.ndarray | None:
        """True states (trial, time) of a simulation, -1 in padding."""
        return self.dataset["z"].values if "z" in self.dataset else None

    @property
    def messages(self) -> np.ndarray | None:
        """True messages (trial, time, target, source, latent of the target) of a simulation, NaN in padding."""
        return self.dataset["messages"].values if "messages" in self.dataset else None

    @property
    def labels(self) -> np.ndarray | None:
        """Condition of each trial, where given."""
        return self.dataset["label"].values if "label" in self.dataset.coords else None

    @property
    def sessions(self) -> np.ndarray | None:
        """Session of each trial, where several were joined."""
        return self.dataset["session"].values if "session" in self.dataset.coords else None

    @property
    def ids(self) -> np.ndarray:
        """Index of each trial in the recording."""
        return self.dataset["trial"].values

    @property
    def numbers(self) -> np.ndarray:
        """Place of each trial in the recording, whatever its id; the same in every selection of the trials."""
        return self.dataset["number"].values

    @property
    def region_sizes(self) -> list[int]:
        """Neurons of each region."""
        return list(self.dataset.attrs["region_sizes"])

    @property
    def region_names(self) -> list[str]:
        """Name of each region."""
        return list(self.dataset.attrs["region_names"])

    @property
    def region_of_neuron(self) -> np.ndarray:
        """Index of each neuron's region."""
        return np.repeat(np.arange(len(self.region_sizes)), self.region_sizes)

    @property
    def bin_width(self) -> float:
        """Seconds."""
        return self.dataset.attrs["bin_width"]

    @cached_property
    def holds_counts(self) -> bool:
        """Whether every observed signal is a whole number from 0."""
        with np.errstate(invalid="ignore"):
            whole = (self.y >= 0) & (self.y == np.round(self.y))
        return bool((whole | ~self.observed).all())

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that another recording would not have: of signals, inputs, stages and lengths."""
        found = hashlib.sha256()
        for name in ("y", "u", "stage", "lengths"):
            values = np.ascontiguousarray(self.dataset[name].values)
            found.update(f"{name} {values.shape} {values.dtype}".encode())
            found.update(values.tobytes())
        return found.hexdigest()[:16]

    @property
    def num_trials(self) -> int:
        return self.dataset.sizes["trial"]

    @property
    def num_bins(self) -> int:
        return self.dataset.sizes["time"]

    @property
    def num_neurons(self) -> int:
        return self.dataset.sizes["neuron"]

    @property
    def num_inputs(self) -> int:
        return self.dataset.sizes["input"]

    @property
    def num_stages(self) -> int:
        return self.dataset.sizes["stage_kind"]

    def select(self, indices: Sequence[int] | np.ndarray | slice) -> "Trials":
        """The trials at these positions, padded as before."""
        return Trials(self.dataset.isel(trial=indices))

    def limit_bins(self, limit: int) -> "Trials":
        """Leave out trials of more than ``limit`` bins (the published ``tlim``)."""
        keep = np.flatnonzero(self.lengths <= limit)
        if len(keep) == 0:
            raise DataError(f"data.tlim: no trial has {limit} bins or fewer; the shortest has {self.lengths.min()}.")
        return Trials(self.dataset.isel(trial=keep, time=slice(0, int(self.lengths[keep].max()))))

    def with_inputs(self, width: int) -> "Trials":
        """Inputs widened with zeros to ``width`` (the published ``inputs``)."""
        if width < self.num_inputs:
            raise DataError(
                f"data.inputs: found {width}, but the recording has {self.num_inputs} inputs. "
                f"Set it to {self.num_inputs} or more, or leave it out."
            )
        wide = np.zeros((*self.u.shape[:2], width), np.float32)
        wide[..., : self.num_inputs] = self.u
        return Trials(self.dataset.drop_vars("u").assign(u=(("trial", "time", "input"), wide)))

    def validate(self, counts: bool = False, *, refused: Sequence[Sequence[Refused]] = ()) -> None:
        """Check what a likelihood needs: ``refused`` has values that signals of each neuron may not have.

        Raises:
            DataError: an infinite value, a neuron never observed, a refused value, or with ``counts`` a negative or
                fractional count; trial, bin and neuron are named.
        """
        self._reject(np.isinf(self.y), "an infinite value", "Mark missing values with NaN.")
        unknown = np.argwhere(~np.isfinite(self.u))
        if len(unknown):
            t, b, m = unknown[0]
            raise DataError(f"us: trial {self.ids[t]}, bin {b}, input {m} is {self.u[t, b, m]}; inputs must be finite.")
        never = np.flatnonzero(~self.observed.any((0, 1)))
        if len(never):
            named = ", ".join(f"{n} ({self.dataset['neuron'].values[n]})" for n in never[:5])
            raise DataError(f"ys: neuron {named} is never observed. Remove it from ys and from region_sizes.")
        by_neuron = [NOT_COUNTS] * self.num_neurons if counts else refused
        for rule in dict.fromkeys(rule for rules in by_neuron for rule in rules):
            with np.errstate(invalid="ignore"):
                found = rule.found(self.y) & np.array([rule in rules for rules in by_neuron])
            self._reject(found, rule.what, rule.remedy)

    def batch(self, hidden_neurons: Sequence[int] | np.ndarray | None = None) -> Batch:
        """Arrays for programs and guides; ``hidden_neurons`` are scored but not shown to an encoder."""
        visible = self.observed.copy()
        if hidden_neurons is not None:
            visible[..., np.asarray(hidden_neurons, int)] = False
        y = np.where(self.observed, self.y, 0.0).astype(np.float32)
        return Batch(
            y,
            self.u.astype(np.float32),
            self.observed,
            visible,
            self.lengths.astype(np.int32),
            self.stage.astype(np.float32),
            self.numbers,
        )

    def _reject(self, bad: np.ndarray, what: str, remedy: str) -> None:
        where = np.argwhere(bad)
        if len(where):
            t, b, n = where[0]
            raise DataError(
                f"ys: trial {self.ids[t]}, bin {b}, neuron {n} ({self.dataset['neuron'].values[n]}) has {what}: "
                f"{self.y[t, b, n]}" + (f" (and {len(where) - 1} more). " if len(where) > 1 else ". ") + remedy
            )
