"""One training step: value, gradient and Adam update inside the compiled loop.

B=64, T=150, N=100, R=2, d=1, K=2. The budgets are for two CPU cores.
"""

import jax
import numpy as np
import pytest
from bench_case import FULL, SIZES, make_step

CASES = {
    "default": ("gaussian_markov", "convolution", 60.0),
    "transformer": ("gaussian_markov", "transformer", 120.0),
    "mean_field": ("mean_field", "convolution", 60.0),
    "published": ("mean_field", "transformer", 120.0),
}


@pytest.mark.slow
# Two cases compile every part once, which is what a smoke test is for.
@pytest.mark.parametrize("case", CASES if FULL else ["default", "published"])
def test_training_step(benchmark, case):
    guide, encoder, budget = CASES[case]
    step = make_step(guide, encoder, SIZES)
    state = step.state
    histories = []

    def run():
        nonlocal state
        state, history = jax.block_until_ready(step.run_chunk(state, step.data))
        histories.append(history)

    benchmark.pedantic(run, rounds=10 if FULL else 1, iterations=1, warmup_rounds=1)
    assert int(state.step) == len(histories) * SIZES.steps
    assert int(state.skipped) == 0
    losses = np.concatenate([history.loss for history in histories])
    assert np.isfinite(losses).all()
    if FULL:
        # On steps of different batches, so means are compared.
        assert losses[-SIZES.steps :].mean() < losses[: SIZES.steps].mean()
    if benchmark.stats is not None:
        milliseconds = 1e3 * benchmark.stats.stats.median / SIZES.steps
        benchmark.extra_info.update(ms_per_step=round(milliseconds, 1), budget_ms=budget)
        if FULL:
            assert milliseconds <= budget
