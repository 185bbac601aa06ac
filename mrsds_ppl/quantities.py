"""Kinds of numbers that a setting may hold: plain numbers in Python, checked where a configuration is read.

No JAX here: a configuration is read and refused before JAX is imported.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

__all__ = ["Count", "Float", "Fraction", "Int", "Positive", "SplitFraction", "Steps", "Weight", "whole_number"]


def whole_number(value: object) -> object:
    """An int for 5, 5.0, ``"5"`` and ``"1e3"``; what is no number is refused."""
    # YAML 1.1 reads 1e3 as text, and Python counts true as 1.
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("allowed: a number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("allowed: a number") from None
    return value


Int = Annotated[int, BeforeValidator(whole_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1)]
Steps = Annotated[Int, Field(ge=0)]
Positive = Annotated[Float, Field(gt=0)]
Weight = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
SplitFraction = Annotated[Float, Field(ge=0, lt=1)]
