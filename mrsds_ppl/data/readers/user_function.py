"""Recordings from a function of the user's own, named as ``file.py:function``."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mrsds_ppl.data.axes import demand_order
from mrsds_ppl.data.keys import is_empty, sizes_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, MrsdsError


def load_user_function(
    source: str,
    data_path: str | Path | None = None,
    *,
    bin_width: float | None = None,
    region_names: Sequence[str] | None = None,
) -> Trials:
    """Trials from ``file.py:function``, which returns ``ys, us, region_sizes, num_regions``, or Trials.

    The function is given ``data_path`` if it has an argument of that name, or else as its first required argument.

    Raises:
        DataError: no such file or function, the function fails, or another return value.
    """
    file, _, name = source.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise DataError(f"{file or source}: no such file. data.data_source needs the form file.py:function.")
    try:
        module = load_module(path, "loader")
    except Exception as error:
        raise _failed(path, "cannot be imported", error) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise DataError(f"{path}: has no function '{name}'; found {found}.")
    given = _path_argument(function, source, data_path)
    try:
        result = function(**given)
    except MrsdsError:
        raise
    except Exception as error:
        raise _failed(path, f"{name} failed", error) from error
    if isinstance(result, Trials):
        return result
    if not isinstance(result, tuple | list) or len(result) != 4:
        returned = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise DataError(f"{source}: returned {returned}; need four: ys, us, region_sizes, num_regions; or Trials.")
    ys, us, region_sizes, num_regions = result
    if region_sizes is None or np.ndim(num_regions) or np.size(region_sizes) != num_regions:
        raise DataError(
            f"{source}: returned num_regions={num_regions!r} but region_sizes={region_sizes!r}; "
            "need four values ys, us, region_sizes, num_regions, with one size a region."
        )
    try:
        us, sizes = None if is_empty(us) else us, sizes_of(region_sizes)
        demand_order(ys, us, sum(sizes))
        width = 1.0 if bin_width is None else bin_width
        return Trials.from_arrays(ys, us, sizes, bin_width=width, region_names=region_names)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _path_argument(function: Callable[..., Any], source: str, data_path: str | Path | None) -> dict[str, Any]:
    """What to call the user's function with: the path, where it has a place for it."""
    parameters = inspect.signature(function).parameters
    required = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if len(required) > 1:
        raise DataError(f"{source}: needs the arguments {required}; a loader is given one, the path of the data.")
    name = required[0] if required else "data_path"
    if required and data_path is None:
        raise DataError(f"{source}: needs the argument '{name}'. Set --data-path or data.data_path.")
    return {name: data_path} if name in parameters and data_path is not None else {}


def _failed(path: Path, what: str, error: Exception) -> DataError:
    """The user's own exception, with the last line of their file that it passed through."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    where = f", line {lines[-1]}" if lines else ""
    return DataError(f"{path}{where}: {what} ({type(error).__name__}: {error}). Mend the function and try again.")


def load_module(path: Path, kind: str) -> ModuleType:
    """The module of a file that exists, run now; whatever it raises is passed on.

    Args:
        path: a Python file.
        kind: what it is for, part of the module's name.
    """
    spec = importlib.util.spec_from_file_location(f"_mrsds_{kind}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by its name, one that shadows no installed package.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
