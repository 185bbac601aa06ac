"""One training step with each guide, against `mean_field` with the same encoder, measured in turns.

Sizes as in `test_step.py`. `structured` has a program with one state and is held to `mean_field` with two.
"""

import time

import jax
import numpy as np
import pytest
from bench_case import FULL, SIZES, make_step

BUDGET = 1.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["gaussian_markov", "switching_structured", "structured"] if FULL else ["switching_structured"]
)
def test_step_of_a_guide_against_mean_field(benchmark, name):
    steps = {guide: make_step(guide, "convolution", SIZES) for guide in (name, "mean_field")}
    states = {guide: step.state for guide, step in steps.items()}
    seconds = {guide: [] for guide in steps}

    def in_turns():
        for guide, step in steps.items():
            start = time.perf_counter()
            states[guide], _ = jax.block_until_ready(step.run_chunk(states[guide], step.data))
            seconds[guide].append(time.perf_counter() - start)

    benchmark.pedantic(in_turns, rounds=10 if FULL else 1, iterations=1, warmup_rounds=1)
    assert all(int(state.skipped) == 0 for state in states.values())
    # The first turn compiles.
    medians = {guide: np.median(times[1:] or times) for guide, times in seconds.items()}
    ratio = float(medians[name] / medians["mean_field"])
    benchmark.extra_info.update(
        ratio=round(ratio, 3), ms_per_step=round(1e3 * medians[name] / SIZES.steps, 1), budget=BUDGET
    )
    if FULL:
        assert ratio <= BUDGET
