"""Help and the import of the package answer at once: in little more time than Python takes to import numpy."""

import shutil
import subprocess
import sys
import sysconfig
import time

import pytest

PYTHON = [sys.executable, "-c"]
COMMAND = shutil.which("mrsds", path=sysconfig.get_path("scripts"))
# Numpy took 0.1 to 0.25 s where this was set, and jax three times that.
MOST, TURNS = 1.5, 5


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("command", [[*PYTHON, "import mrsds_ppl"], [COMMAND, "--help"]], ids=["import", "help"])
def test_start_takes_little_more_than_importing_numpy(command):
    """The fastest of some turns each, since whatever else the machine does only adds."""
    assert None not in command, "the package is not installed in this environment"
    turns = [(seconds(command), seconds([*PYTHON, "import numpy"])) for _ in range(TURNS)]
    ours, numpys = (min(times) for times in zip(*turns, strict=True))
    assert ours <= MOST * numpys


def test_the_import_leaves_the_libraries_that_take_time_for_later():
    heavy = {"jax", "numpy", "numpyro", "matplotlib", "xarray"}
    subprocess.run([*PYTHON, f"import sys, mrsds_ppl; assert not {heavy} & set(sys.modules)"], check=True)
