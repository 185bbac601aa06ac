"""One training step: value, gradient and Adam update inside the compiled loop, as a multiple of the floor.

B=64, T=150, N=100, R=2, d=1, K=2. The floor is in `bench_floor.py`.
"""

import jax
import numpy as np
import pytest
from bench_case import FULL, SIZES, make_model, make_step
from bench_floor import make_floor, timed

CASES = {
    "default": ("gaussian_markov", "convolution", 12.0),
    "transformer": ("gaussian_markov", "transformer", 24.0),
    "mean_field": ("mean_field", "convolution", 12.0),
    "published": ("mean_field", "transformer", 24.0),
}


@pytest.mark.slow
# Two cases compile every part once, which is what a smoke test is for.
@pytest.mark.parametrize("case", CASES if FULL else ["default", "published"])
def test_training_step(benchmark, case):
    guide, encoder, budget = CASES[case]
    step = make_step(guide, encoder, SIZES)
    floor = make_floor(make_model(SIZES), SIZES)
    state = step.state
    histories, laps = [], []

    def run():
        nonlocal state
        state, history = jax.block_until_ready(step.run_chunk(state, step.data))
        histories.append(history)

    def in_turns():
        laps.append((timed(run), min(floor() for _ in range(10))))

    benchmark.pedantic(in_turns, rounds=10 if FULL else 1, iterations=1, warmup_rounds=1)
    assert int(state.step) == len(histories) * SIZES.steps
    assert int(state.skipped) == 0
    losses = np.concatenate([history.loss for history in histories])
    assert np.isfinite(losses).all()
    # The first turn compiles.
    step_seconds, floor_seconds = np.median(laps[1:] or laps, axis=0) / (SIZES.steps, 1)
    ratio = float(step_seconds / floor_seconds)
    benchmark.extra_info.update(
        ms_per_step=round(1e3 * step_seconds, 1),
        floor_ms=round(1e3 * floor_seconds, 2),
        ratio=round(ratio, 1),
        budget=budget,
    )
    if FULL:
        # On steps of different batches, so means are compared.
        assert losses[-SIZES.steps :].mean() < losses[: SIZES.steps].mean()
        assert ratio <= budget
