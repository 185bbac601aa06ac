"""Packages that only some formats need."""

import importlib.util
from pathlib import Path

from mrsds_ppl.errors import DataError


def require(package: str, path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        extra = {"pynwb": "nwb"}.get(package, package)
        raise DataError(f"{path}: reading this needs the package {package}: pip install 'mrsds-ppl[{extra}]'.")
