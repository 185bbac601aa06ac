"""What a user can get wrong, one exception type per cause.

Every message says what was found, where, what is allowed and what to do. The command line prints it in one block and
exits with status 2, or that of the exception, without a traceback.
"""

from collections.abc import Iterable


class MrsdsError(Exception):
    """Base of the errors that a user can mend; ``status`` is the command's exit status."""

    status = 2


class ConfigError(MrsdsError):
    """The configuration is wrong: the message names the YAML path, what was found and what is allowed."""


class DataError(MrsdsError):
    """The recording is wrong: the message names the file, key, trial, bin or neuron."""


class BinWidthError(DataError):
    """Spike times without the width of the bins that they are counted in."""


class RunError(MrsdsError):
    """A run cannot be started, resumed or read."""


class ScoreError(RunError):
    """A run ended and its files are written, but a score is not finite."""

    status = 1


class UnfinishedError(RunError):
    """A sweep ended and its files are written, but some of its fits failed."""

    status = 1


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    found = [str(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
