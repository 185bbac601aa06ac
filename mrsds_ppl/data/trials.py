"""Trials: the one data container."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from mrsds_ppl.data.arrays import TrialArrays
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.continuous.pieces import OneRecording, in_pieces, one_trial
from mrsds_ppl.data.dataset import Beside, Names, check_values, limited, signals_of, trials_dataset, widened
from mrsds_ppl.data.neurons import arrange_neurons, of_session, without
from mrsds_ppl.data.signals import NOT_COUNTS, Refused
from mrsds_ppl.data.spikes.bins import inputs_in_bins, trial_bins, trial_intervals
from mrsds_ppl.data.spikes.counts import spike_counts, units_of
from mrsds_ppl.data.spikes.pynapple import Events, IntervalSet, TsGroup, spikes_of


@dataclass(frozen=True)
class Trials(TrialArrays):
    """Simultaneous recordings of several regions, padded to the longest trial, with what is known beside them.

    ``dataset`` is an xarray Dataset with y and observed (trial, time, neuron), u (trial, time, input), stage (trial,
    time, stage), lengths (trial), and of simulations x (trial, time, latent), z (trial, time) and messages (trial,
    time, target, source, latent of the target); coordinates: id and number of each trial, time in seconds, region and
    id of each neuron, name of each input. NaN in y is missing. Neurons are sorted by region, first seen first.

    Of joined sessions there is also the session of each trial, and the neuron of each session in each column.

    Pieces of one recording are trials that also have ``start`` (seconds from its start) and ``follows`` (whether a
    piece carries on where the one before it ended).
    """

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
        trial_ids: Iterable[object] | None = None,
    ) -> "Trials":
        """Trials from lists of arrays, one a trial, or from arrays with a leading trial axis.

        Args:
            ys: (time, neuron) of each trial: signals or counts per bin; NaN where missing.
            us: (time, input) of each trial.
            region_sizes: neurons of each region, in the order of ys; default one region.
            regions: (neuron,) name of the region of each neuron, in any order, in place of ``region_sizes``.
            region_names: default ``region0``, ``region1``, ...; beside ``regions``, the order of these.
            neurons: (neuron,) id of each neuron in the recording; default ``REGION:0``, ``REGION:1``, ...
            input_names: name of each input, which messages from it have; default ``input 0``, ``input 1``, ...
            bin_width: seconds.
            stages: trial stage of each bin, (time,) integers or (time, stage) one-hot.
            x, z, messages: true latents (time, latent), states (time,) and messages of a simulation.
            labels, trial_ids: condition of each trial, and its id, a whole number; default 0, 1, ...

        Raises:
            DataError: no trials, shapes that do not fit (the trial is named), sizes that do not add up, too few names.
        """
        signals = signals_of(ys, region_sizes)
        arranged = arrange_neurons(signals[0].shape[1], region_sizes, regions, region_names, neurons)
        given, names = Beside(us, stages, x, z, messages), Names(trial_ids, input_names, labels)
        return cls(trials_dataset(signals, arranged, given, names, bin_width))

    @classmethod
    def from_continuous(
        cls, y: object, u: object = None, *, piece: float | int | None = None, **options: Unpack[OneRecording]
    ) -> "Trials":
        """Pieces of one continuous recording, as trials that know their place in it.

        A piece begins where the one before it ended; the last one may be shorter. The id of a piece is its place.
        A piece without any observed value is left out with a warning. The split holds out blocks of pieces, with a gap
        around each: see :func:`mrsds_ppl.data.split.split_trials`.

        Args:
            y: (time, neuron) signals or counts per bin; NaN where missing.
            u: (time, input).
            piece: length of a piece in seconds; default 150 bins, or a twentieth of a recording of fewer than 3,000,
                but at least 20 bins.
            options: ``region_sizes`` or ``regions``, ``region_names``, ``neurons``, ``input_names`` and ``bin_width``
                as of :meth:`from_arrays`; ``stages`` (time,), and of a simulation ``x`` (time, latent) and ``z``
                (time,).

        Raises:
            DataError: as :meth:`from_arrays`; a piece shorter than two bins, or longer than the recording.
        """
        return cls.from_arrays([y], None if u is None else [u], **one_trial(options)).in_pieces(piece)

    @classmethod
    def from_spikes(
        cls,
        spike_times: object,
        regions: object,
        *,
        bin_width: float,
        trials: object = None,
        align: object = None,
        window: Sequence[float | int] | None = None,
        observed: object = None,
        inputs: Mapping[str, object] | None = None,
        labels: Sequence[object] | np.ndarray | None = None,
        neurons: Iterable[object] | None = None,
        trial_ids: Sequence[int] | np.ndarray | None = None,
    ) -> "Trials":
        """Trials of spike counts, from spike times. All times are seconds on one clock.

        A bin holds the spikes from its start up to, not at, its stop. A trial holds whole bins from its start on; the
        rest is left out. Trials whose time is NaN, or that lie outside the recording, are left out with a warning.

        Args:
            spike_times, regions: times of each unit, in any order, and name of its region; or mappings from its id.
            bin_width: seconds.
            trials: (trial, 2), start and stop of each; trials may differ in length.
            align, window: in place of ``trials``, event times (trial,), and start and stop from there: (-0.2, 1.0).
            observed: (interval, 2), when all units were observed, or one such array for each; default throughout. Bins
                not wholly inside are missing.
            inputs: by name, a number for each trial, or a signal as a tuple (times, values): averaged in bins, and
                interpolated in those without a sample.
            labels, neurons, trial_ids: as of :meth:`from_arrays`; ids of a mapping are those of the neurons.

        Raises:
            DataError: times that are no seconds, a trial shorter than a bin, no spike in any, or not one for each.
        """
        units = units_of(spike_times, regions, neurons, observed)
        bins = trial_bins(trial_intervals(trials, align, window), bin_width, units.span, trial_ids)
        us, names = inputs_in_bins(inputs or {}, bins)
        return cls.from_arrays(
            spike_counts(units, bins),
            us,
            regions=units.regions,
            neurons=units.ids,
            input_names=names,
            bin_width=bin_width,
            labels=None if labels is None else bins.of_kept(labels, "labels"),
            trial_ids=bins.ids,
        ).noting(bins.notes)

    @classmethod
    def from_pynapple(
        cls,
        units: TsGroup,
        regions: str | Iterable[object] = "location",
        *,
        trials: IntervalSet | Events,
        bin_width: float,
        window: Sequence[float | int] | None = None,
        inputs: Mapping[str, object] | None = None,
        labels: str | Sequence[object] | None = None,
    ) -> "Trials":
        """Trials of spike counts from objects of pynapple, as :meth:`from_spikes`.

        Args:
            units: a ``TsGroup``; its ``time_support`` says when units were observed.
            regions: the column of its metadata that names the region of each unit, or the names.
            trials: an ``IntervalSet``, or a ``Ts`` of events with ``window``.
            bin_width, window, inputs, labels: as of :meth:`from_spikes`; an input may be a ``Tsd``, labels a column of
                the metadata of ``trials``.

        Raises:
            DataError: as :meth:`from_spikes`, or there is no such column.
        """
        return cls.from_spikes(bin_width=bin_width, **spikes_of(units, regions, trials, window, inputs, labels))

    def noting(self, notes: Sequence[str]) -> "Trials":
        """The trials with more ``notes`` on how they were read, an attribute of the dataset that a fit repeats."""
        every = [*self.dataset.attrs.get("notes", []), *notes]
        return Trials(self.dataset.assign_attrs(notes=every)) if every else self

    def select(self, indices: Sequence[int] | np.ndarray | slice) -> "Trials":
        """The trials at these positions, padded as before."""
        return Trials(self.dataset.isel(trial=indices))

    def of_session(self, name: str) -> "Trials":
        """The trials of one of the joined sessions, with its own neurons and regions, as they were before."""
        return Trials(of_session(self.dataset, name))

    def by_session(self) -> "dict[str, Trials]":
        """The trials of each session, neurons in the columns of all; one recording is one session, named ``""``."""
        if self.sessions is None:
            return {"": self}
        found = {name: np.flatnonzero(self.sessions == name) for name in self.session_names or []}
        return {name: self.select(some) for name, some in found.items() if len(some)}

    def limit_bins(self, limit: int) -> "Trials":
        """Leave out trials of more than ``limit`` bins (the published ``tlim``)."""
        return Trials(limited(self.dataset, limit))

    def without_neurons(self, ids: Iterable[object]) -> "Trials":
        """Leave out the neurons of these ids; the others keep theirs. Raises DataError where a region loses all."""
        return Trials(without(self.dataset, ids))

    def in_pieces(self, piece: float | int | None = None) -> "Trials":
        """One trial cut into pieces of ``piece`` seconds, as of :meth:`from_continuous`; several as they are."""
        return Trials(in_pieces(self.dataset, piece))

    def with_inputs(self, width: int) -> "Trials":
        """Inputs widened with zeros to ``width`` (the published ``inputs``)."""
        return Trials(widened(self.dataset, width))

    def validate(
        self, counts: bool = False, *, refused: Sequence[Sequence[Refused]] = (), unseen: bool = False
    ) -> None:
        """Check what a likelihood needs: ``refused`` has values that signals of each neuron may not have.

        With ``unseen`` neurons may be observed in no trial.

        Raises:
            DataError: an infinite value, a neuron never observed, a refused value, or with ``counts`` what is no count.
        """
        check_values(self.dataset, [NOT_COUNTS] * self.num_neurons if counts else refused, unseen=unseen)

    def batch(self, hidden_neurons: Sequence[int] | np.ndarray | None = None) -> Batch:
        """Arrays for programs and guides; ``hidden_neurons`` are scored but not shown to an encoder."""
        visible = self.observed.copy()
        if hidden_neurons is not None:
            visible[..., np.asarray(hidden_neurons, int)] = False
        seen = np.where(self.observed, self.y, 0.0)
        y, u, stage = (values.astype(np.float32) for values in (seen, self.u, self.stage))
        return Batch(
            y, u, self.observed, visible, self.lengths.astype(np.int32), stage, self.numbers, self.session_numbers
        )
