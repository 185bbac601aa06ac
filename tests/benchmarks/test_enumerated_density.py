"""Value and gradient of log p(x, y) with z summed by funsor, against the fast program, in turns, and to compile.

The fast program sums z by the forward algorithm; funsor by a tree of products, K^3 a bin instead of K^2.
"""

import time

import jax
import numpy as np
import pytest
from bench_case import FULL, SIZES, make_batch, make_model
from numpyro import handlers
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor.infer_util import log_density as enumerated_log_density
from numpyro.infer.util import log_density

from mrsds_ppl.ppl.markov import summed_out


@pytest.fixture
def _compiled_anew():
    """What is read back from a disk says nothing about compiling."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", before)


@pytest.mark.slow
@pytest.mark.usefixtures("_compiled_anew")
@pytest.mark.parametrize("num_states", [2, 3, 5] if FULL else [2])
def test_enumerated_program(benchmark, num_states):
    sizes = SIZES._replace(states=num_states, latents=2)
    model, batch = make_model(sizes), jax.device_put(make_batch(sizes, sizes.trials))
    path = jax.random.normal(jax.random.key(5), (sizes.trials, sizes.bins, model.num_latents))
    sites = handlers.trace(handlers.seed(model, 0)).get_trace(batch)
    params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}

    def fast(params, path):
        return log_density(summed_out(model), (batch,), {}, {**params, "x": path})[0]

    def enumerated(params, path):
        program = enum(config_enumerate(model.enumerated), -3)
        return enumerated_log_density(program, (batch,), {}, {**params, "x": path})[0]

    def compiled(density):
        start = time.perf_counter()
        step = jax.jit(jax.value_and_grad(density, argnums=(0, 1))).lower(params, path).compile()
        return step, time.perf_counter() - start

    # Once beforehand, so that neither pays for what both import and trace.
    compiled(fast), compiled(enumerated)
    (ours, ours_compile), (theirs, theirs_compile) = compiled(fast), compiled(enumerated)
    (value, gradient), (expected, expected_gradient) = theirs(params, path), ours(params, path)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1e-3, float(np.abs(b).max(initial=0.0))))

    def lap(step):
        start = time.perf_counter()
        jax.block_until_ready(step(params, path))
        return time.perf_counter() - start

    laps = np.median([(lap(theirs), lap(ours)) for _ in range(30 if FULL else 2)], axis=0)
    benchmark.pedantic(lambda: lap(theirs), rounds=20 if FULL else 1, iterations=1)
    benchmark.extra_info.update(
        ratio=round(laps[0] / laps[1], 2), compile_ratio=round(theirs_compile / ours_compile, 2)
    )
    if FULL:
        print(f"K = {num_states}: {laps[0] / laps[1]:.2f} times, compiled {theirs_compile / ours_compile:.2f} times")
