"""What a file holds, by name, and what it means as Trials; imports the container and errors only."""

from mrsds_ppl.data.keys.to_trials import is_empty, sizes_of, trials_from
from mrsds_ppl.data.keys.values import Struct, Unread

__all__ = ["Struct", "Unread", "is_empty", "sizes_of", "trials_from"]
