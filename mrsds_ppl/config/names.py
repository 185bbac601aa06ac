"""The names that a user writes, in one place, and the nearest of them to a misspelt one.

The command line reads this file for its help, so it imports nothing that takes time.
"""

from collections.abc import Iterable

SIMULATORS = ("lotka-volterra", "oscillators", "double-well", "three-rnns", "wells")
RECORDING = "mydata"

GUIDE_NAMES = (
    "gaussian_markov",
    "mean_field",
    "structured",
    "switching_structured",
    "auto_normal",
    "auto_lowrank",
    "auto_delta",
)
ROLLOUT_GUIDES = ("structured", "switching_structured")
PATH_GUIDES = ("auto_normal", "auto_lowrank", "auto_delta")  # without an encoder
# Those that can give every trial a posterior of its own (inference.encoder: none), from a start by smoothing.
TRIALWISE_GUIDES = ("gaussian_markov", *PATH_GUIDES)
# Those that read inference.triangular_cov.
TRIANGULAR_GUIDES = ("mean_field", *ROLLOUT_GUIDES)


def is_own_guide(name: str) -> bool:
    """Whether the name of a guide is a user's ``path/to/file.py:ClassName``."""
    return ".py:" in name


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name closest in spelling to ``word``, or None where none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(names), n=1, cutoff=0.6)
    return close[0] if close else None


def hint(word: str, names: Iterable[str]) -> str:
    """The question that ends an error message, or nothing where no name is close."""
    near = nearest(word, names)
    return f"; did you mean {near}?" if near else ""
