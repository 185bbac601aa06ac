"""Recordings from files, one file a format, and from functions of the user's; imports the container and errors only."""

from mrsds_ppl.data.readers.recording import load_recording, needs_binning
from mrsds_ppl.data.readers.user_function import load_user_function

__all__ = ["load_recording", "load_user_function", "needs_binning"]
