"""What the compiler is told, and that it then computes what it should."""

import os
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from mrsds_ppl.backend import compiler_flags

SUM = """
import numpy as np
a, b = np.random.default_rng(0).normal(size=(2, 6, 6, 20000)).astype(np.float32)
found = jax.jit(lambda a, b: (a[:, :, None] * b[None]).sum(1))(a, b)
assert np.abs(found - np.einsum("ijn,jkn->ikn", a, b)).max() < 1e-4
"""


@pytest.fixture(params=["--xla_dump_to=x", "", None])
def flags(request, monkeypatch):
    """A function that tells what becomes of XLA_FLAGS in a call with some jaxlib."""

    def after(call, jaxlib, given=request.param, computed=False):
        monkeypatch.setattr(compiler_flags, "version", lambda package: {"jaxlib": jaxlib}[package])
        bridge = SimpleNamespace(backends_are_initialized=lambda: computed)
        monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", bridge)
        monkeypatch.setenv("XLA_FLAGS", given or "")
        if given is None:
            monkeypatch.delenv("XLA_FLAGS")
        call()
        return os.environ.get("XLA_FLAGS", "").removeprefix(given or "").strip()

    return after


def test_the_command_s_compiler_is_told_the_level_that_the_user_did_not(flags):
    tell = compiler_flags.choose_optimization_level
    assert flags(tell, "0.11.1") == "--xla_backend_optimization_level=2"
    assert flags(tell, "0.11.1", given="--xla_backend_optimization_level=3") == ""


def test_the_version_with_wrong_sums_alone_is_told_to_leave_a_library_out(flags):
    tell = compiler_flags.ensure_right_sums
    assert flags(tell, "0.10.2") == "--xla_cpu_experimental_ynn_fusion_type="
    assert flags(tell, "0.10.2", given="--xla_cpu_experimental_ynn_fusion_type=dot") == ""
    assert flags(tell, "0.11.1") == flags(tell, "0.11.1", computed=True) == ""


def python(code, **environment):
    """In a process of its own, as JAX reads its flags once."""
    inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    told = inherited | {"JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=False)


def test_large_sums_of_products_are_right_in_a_script_without_a_call_of_its_own():
    done = python("import jax, numpyro, mrsds_ppl.models" + SUM)
    assert done.returncode == 0, done.stderr


def test_the_import_is_refused_where_sums_are_wrong_and_nothing_can_be_done():
    code = "import jax\njax.numpy.zeros(2).sum()\n"
    wrong = version("jaxlib") == "0.10.2" and python(code + SUM).returncode != 0
    done = python(code + "import mrsds_ppl")
    assert (done.returncode != 0) == wrong
    assert ("import mrsds_ppl before JAX computes anything" in done.stderr) == wrong
    told = python(code + "import mrsds_ppl" + SUM, XLA_FLAGS="--xla_cpu_experimental_ynn_fusion_type=")
    assert told.returncode == 0 or version("jaxlib") != "0.10.2", told.stderr
