"""Checks of what a user gives a simulator; each error names the key as it stands in a configuration."""

from numbers import Integral, Real
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


def check_sizes(**sizes: object) -> None:
    """Raises ConfigError for the first that is no whole number of at least one."""
    for name, size in sizes.items():
        check_number(name, size, Integral, 1)


def check_deviations(most: float = np.inf, **deviations: object) -> None:
    """Raises ConfigError for the first that is no standard deviation of at most ``most``."""
    for name, deviation in deviations.items():
        check_number(name, deviation, Real, 0, ", a standard deviation", most=most)


def check_seeds(seed: int, trial_seed: object = None) -> None:
    """Raises ConfigError where the seed, or that of the trials where there is one, is negative."""
    if seed < 0:
        raise ConfigError(f"seed: found {seed}, need 0 or more.")
    if trial_seed is not None:
        check_number("trial_seed", trial_seed, Integral, 0)
