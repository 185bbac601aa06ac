"""Four restarts as one program against four runs one after another, of steps that are compiled already.

The one program compiles once, and each of four commands would compile (or load) its own, which is left out here.
"""

import time

import jax
import pytest
from bench_case import FULL, SIZES, make_restarts, make_step

RESTARTS, BUDGET = 4, 1.0


@pytest.mark.slow
def test_four_restarts_against_four_runs(benchmark):
    one = make_step("gaussian_markov", "convolution", SIZES)
    four = make_restarts("gaussian_markov", "convolution", SIZES, RESTARTS)
    alone, together, seconds = one.state, four.state, {"runs": [], "restarts": []}

    def in_turns():
        nonlocal alone, together
        start = time.perf_counter()
        for _ in range(RESTARTS):
            alone, _ = jax.block_until_ready(one.run_chunk(alone, one.data))
        middle = time.perf_counter()
        together, _ = jax.block_until_ready(four.run_chunk(together, four.data))
        seconds["runs"].append(middle - start)
        seconds["restarts"].append(time.perf_counter() - middle)

    benchmark.pedantic(in_turns, rounds=6 if FULL else 1, iterations=1, warmup_rounds=1)
    assert int(alone.skipped) == 0
    assert together.skipped.shape == (RESTARTS,)
    assert not together.skipped.any()
    # The first turn compiles.
    best = {name: min(times[1:] or times) for name, times in seconds.items()}
    ratio = best["restarts"] / best["runs"]
    benchmark.extra_info.update(ratio=round(ratio, 3), budget=BUDGET, first_call_s=round(seconds["restarts"][0], 1))
    if FULL:
        assert ratio <= BUDGET
