"""What decides a run: its keys, their names, YAML files and other spellings; no JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrsds_ppl.config.arguments import config_for as config_for
    from mrsds_ppl.config.loading import RunConfig as RunConfig
    from mrsds_ppl.config.loading import load_config as load_config
    from mrsds_ppl.config.loading import parse_assignment as parse_assignment
    from mrsds_ppl.config.loading import resolved_yaml as resolved_yaml

__all__ = ["RunConfig", "config_for", "load_config", "parse_assignment", "resolved_yaml"]


def __getattr__(name: str) -> Any:
    # The command line takes names from here for its help, which waits for nothing else.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "arguments" if name == "config_for" else "loading"
    return getattr(import_module(f"{__name__}.{home}"), name)
