"""Recordings: the container, readers, splits and simulators."""

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.readers import load_recording, load_user_function
from mrsds_ppl.data.split import Split, choose_held_out_neurons, split_into_fold, split_trials
from mrsds_ppl.data.trials import Trials

__all__ = [
    "Batch",
    "Split",
    "Trials",
    "choose_held_out_neurons",
    "load_recording",
    "load_user_function",
    "split_into_fold",
    "split_trials",
]
