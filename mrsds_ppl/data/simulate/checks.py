"""Checks of what a user gives a simulator; each error names the key as it stands in a configuration."""

from numbers import Integral
from typing import Any

import numpy as np

from mrsds_ppl.errors import ConfigError


def check_number(
    name: str, value: Any, kind: type, least: float | int, why: str = "", most: float | int = np.inf
) -> None:
    """A finite number, whole where ``kind`` is Integral, from ``least`` to ``most``.

    Raises:
        ConfigError: it is not; ``why`` ends the first clause of the message.
    """
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not number or not least <= value <= most or abs(value) == np.inf:
        noun = "a whole number" if kind is Integral else "a number"
        limit = "" if most == np.inf else f" and at most {most}"
        raise ConfigError(f"data.simulation.{name}: found {value!r}, need {noun} of at least {least}{limit}{why}.")


def check_flag(name: str, value: object) -> None:
    """Raises ConfigError where ``value`` is not true or false."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"data.simulation.{name}: found {value!r}, need true or false.")


def check_seed(seed: int) -> None:
    """Raises ConfigError where ``seed`` is negative."""
    if seed < 0:
        raise ConfigError(f"seed: found {seed}, need 0 or more.")
