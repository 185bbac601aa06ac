"""What the compiler is told, and that it then computes what it should."""

import os
import subprocess
import sys

import pytest

from mrsds_ppl.backend import compiler_flags
from mrsds_ppl.backend.compiler_flags import choose_compiler_flags


@pytest.mark.parametrize(
    ("jaxlib", "given", "after"),
    [
        ("0.11.1", None, "--xla_backend_optimization_level=2"),
        ("0.11.1", "--xla_dump_to=x", "--xla_dump_to=x --xla_backend_optimization_level=2"),
        ("0.11.1", "--xla_backend_optimization_level=3", "--xla_backend_optimization_level=3"),
        ("0.10.2", None, "--xla_backend_optimization_level=2 --xla_cpu_experimental_ynn_fusion_type="),
        (
            "0.10.2",
            "--xla_cpu_experimental_ynn_fusion_type=dot",
            "--xla_cpu_experimental_ynn_fusion_type=dot --xla_backend_optimization_level=2",
        ),
    ],
)
def test_the_compiler_is_told_what_the_user_did_not(monkeypatch, jaxlib, given, after):
    monkeypatch.setattr(compiler_flags, "version", lambda package: {"jaxlib": jaxlib}[package])
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    choose_compiler_flags()
    assert os.environ["XLA_FLAGS"] == after


def test_large_sums_of_products_are_right_where_all_is_imported_before():
    """In a process of its own, as JAX reads its flags once: when it first computes, not when it is imported."""
    code = """
import jax
import numpy as np
from mrsds_ppl.commands import fit as run
from mrsds_ppl.backend.compiler_flags import choose_compiler_flags
choose_compiler_flags()
a, b = np.random.default_rng(0).normal(size=(2, 6, 6, 20000)).astype(np.float32)
found = jax.jit(lambda a, b: (a[:, :, None] * b[None]).sum(1))(a, b)
assert np.abs(found - np.einsum("ijn,jkn->ikn", a, b)).max() < 1e-4
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    )
