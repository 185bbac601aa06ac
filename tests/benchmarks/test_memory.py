"""Peak memory of the compiled step grows at most linearly in bins, trials and neurons, as the compiler plans it."""

from functools import cache

import pytest
from bench_case import FULL, SIZES, make_step

# Smaller than the other benchmarks' tiny case would hide the growth behind what does not grow.
BASE = SIZES if FULL else SIZES._replace(trials=8, bins=32, neurons=40)
SLACK = 1.1


@cache
def peak_bytes(sizes):
    """Arguments, results and temporary arrays of one call of the compiled loop, shared buffers counted once."""
    step = make_step("gaussian_markov", "convolution", sizes)
    plan = step.run_chunk.lower(step.state, step.data).compile().memory_analysis()
    return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["bins", "trials", "neurons"])
def test_memory_of_a_step_is_linear(benchmark, axis):
    double = BASE._replace(**{axis: 2 * getattr(BASE, axis)})
    small = peak_bytes(BASE)
    large = benchmark.pedantic(peak_bytes, (double,), rounds=1, iterations=1)
    benchmark.extra_info.update(
        **{f"mb_at_{getattr(BASE, axis)}_{axis}": round(small / 1e6, 1)},
        **{f"mb_at_{getattr(double, axis)}_{axis}": round(large / 1e6, 1)},
        growth=round(large / small, 2),
    )
    assert small < large <= 2 * SLACK * small
