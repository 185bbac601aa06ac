"""The `mrsds` command in a process of its own, where it chooses the compiler's flags itself."""

import os
import subprocess
import sys


def mrsds(*arguments: str) -> str:
    """What the command printed; it has to succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "mrsds_ppl", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
