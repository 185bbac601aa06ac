"""Python files of the user's own, loaders and guides, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


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
