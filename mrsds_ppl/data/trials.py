"""Trials: the one data container."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.dataset import Beside, check_values, signals_of, trials_dataset
from mrsds_ppl.data.neurons import arrange_neurons, check_input_names, default_input_names
from mrsds_ppl.errors import DataError


@dataclass(frozen=True)
class Trials:
    """Simultaneous recordings of several regions, padded to the longest trial, with what is known beside them.

    ``dataset`` is an xarray Dataset with y and observed (trial, time, neuron), u (trial, time, input), stage (trial,
    time, stage), lengths (trial), and of simulations x (trial, time, latent), z (trial, time) and messages (trial,
    time, target, source, latent of the target); coordinates: id and number of each trial, time in seconds, region and
    id of each neuron, name of each input. NaN in y is missing. Neurons are sorted by region.
    """

    dataset: xr.Dataset

    @classmethod
    def from_arrays(
        cls,
        ys: object,
        us: object = None,
        region_sizes: Sequence[int] | None = None,
        *,
        regions: Iterable[object] | None = None,
        region_names: Sequence[str] | None = None,
        neurons: Iterable[object] | None = None,
        input_names: Iterable[object] | None = None,
        bin_width: float = 1.0,
        stages: object = None,
        x: object = None,
        z: object = None,
        messages: object = None,
        labels: Sequence[object] | np.ndarray | None = None,
    ) -> "Trials":
        """Trials from lists of arrays, one a trial, or from arrays with a leading trial axis.

        Args:
            ys: (time, neuron) of each trial: signals or counts per bin; NaN where missing.
            us: (time, input) of each trial.
            region_sizes: neurons of each region, in the order of ys; default one region.
            regions: (neuron,) name of each neuron's region, in any order, in place of ``region_sizes``. Neurons are
                then kept sorted by region, in the order in which regions first appear; ids say which is which.
            region_names: default ``region0``, ``region1``, ...; beside ``regions``, the order of these.
            neurons: (neuron,) id of each neuron in the recording; default ``REGION:0``, ``REGION:1``, ...
            input_names: name of each input, which messages from it have; default ``input 0``, ``input 1``, ...
            bin_width: seconds.
            stages: trial stage of each bin, (time,) integers or (time, stage) one-hot.
            x, z, messages: true latents (time, latent), states (time,) and messages of a simulation.
            labels: condition of each trial.

        Raises:
            DataError: no trials, shapes that do not fit (the trial is named), sizes that do not add up, labels or
                names that are not one for each.
        """
        signals = signals_of(ys)
        arranged = arrange_neurons(signals[0].shape[1], region_sizes, regions, region_names, neurons)
        given = Beside(us, stages, x, z, messages)
        return cls(
            trials_dataset(signals, arranged, given, bin_width=bin_width, input_names=input_names, labels=labels)
        )

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
    def neuron_ids(self) -> np.ndarray:
        """Name of each neuron in the recording."""
        return self.dataset["neuron"].values

    @property
    def input_names(self) -> list[str]:
        """Name of each input."""
        return [str(name) for name in self.dataset["input"].values]

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
        names = [*self.input_names, *default_input_names(width)[self.num_inputs :]]
        names = check_input_names(names, width, self.region_names)
        plain = self.dataset.drop_vars(["u", "input"])
        return Trials(plain.assign(u=(("trial", "time", "input"), wide)).assign_coords(input=names))

    def validate(self, counts: bool) -> None:
        """Check what a likelihood needs.

        Raises:
            DataError: an infinite value, a neuron never observed, or with ``counts`` a negative or fractional count;
                trial, bin and neuron are named.
        """
        check_values(self.dataset, counts)

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
