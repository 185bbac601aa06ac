"""What Trials hold, by name: views of the dataset."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from mrsds_ppl.data.dataset import digest_of


@dataclass(frozen=True)
class TrialArrays:
    """The dataset of :class:`mrsds_ppl.data.trials.Trials`, and each thing in it."""

    dataset: xr.Dataset

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
    def session_names(self) -> list[str] | None:
        """Name of each session, where several were joined; also of those that a selection holds no trial of."""
        return self.dataset["session_name"].values.tolist() if self.sessions is not None else None

    @property
    def num_sessions(self) -> int | None:
        """How many were joined; None for one recording."""
        return None if self.session_names is None else len(self.session_names)

    @property
    def session_numbers(self) -> np.ndarray | None:
        """Place of each trial's session among their names, where several were joined."""
        if self.sessions is None:
            return None
        order = {name: number for number, name in enumerate(self.session_names or [])}
        return np.array([order[name] for name in self.sessions.tolist()], np.int32)

    @property
    def own_neurons(self) -> np.ndarray | None:
        """(session, neuron), id of the neuron in each column, empty where a session has none; of joined sessions."""
        return self.dataset["own_neuron"].values if "own_neuron" in self.dataset.coords else None

    @property
    def starts(self) -> np.ndarray | None:
        """Seconds from the start of the recording to that of each trial, where they are its pieces."""
        return self.dataset["start"].values if "start" in self.dataset.coords else None

    @property
    def follows(self) -> np.ndarray | None:
        """Whether each trial carries on where the one before it in the recording ended, where they are its pieces."""
        return self.dataset["follows"].values if "follows" in self.dataset.coords else None

    @property
    def ids(self) -> np.ndarray:
        """Id of each trial in the recording; its place there by default. ``session/id`` where several were joined."""
        return self.dataset["trial"].values

    @property
    def numbers(self) -> np.ndarray:
        """Place of each trial in the recording, whatever its id; the same in every selection of the trials."""
        return self.dataset["number"].values

    @property
    def region_sizes(self) -> list[int]:
        """Neurons of each region; of the largest session in it, where several were joined."""
        return list(self.dataset.attrs["region_sizes"])

    @property
    def region_names(self) -> list[str]:
        """Name of each region."""
        return list(self.dataset.attrs["region_names"])

    @property
    def neuron_ids(self) -> np.ndarray:
        """Name of each neuron in the recording; of its column where several sessions were joined."""
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
        y = np.where(self.observed, self.y, 0.0)
        return bool(((y >= 0) & (y == np.round(y))).all())

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that another recording would not have: of signals, inputs, stages and lengths."""
        return digest_of(self.dataset)

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
