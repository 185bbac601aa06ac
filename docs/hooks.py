"""What the pages need while they are built: the package laid out as it installs, and a place for figures to appear."""

import logging
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.plugins import event_priority

HERE = Path(__file__).parent
_layout = TemporaryDirectory(prefix="mrsds-docs-")


@event_priority(100)  # before mkdocstrings reads its own
def on_config(config):
    """Show mkdocstrings the folders as they install, and let tutorials draw without a screen."""
    package = Path(_layout.name) / "mrsds_ppl"
    if not package.exists():
        package.mkdir()
        for source in (*(HERE.parent / "mrsds_ppl").iterdir(), HERE.parent / "models", HERE.parent / "guides"):
            if source.name != "__pycache__":
                (package / source.name).symlink_to(source)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_layout.name]
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    sys.path.insert(0, str(HERE / "tutorials"))
    return config


def on_shutdown():
    """Take the links away."""
    _layout.cleanup()
