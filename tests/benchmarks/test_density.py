"""The enumerated density of a path, value and gradient, against a forward algorithm written by hand for this model.

Both use the same networks and are timed in turns in the same run, so that what else the machine does strikes both.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_case import FULL, SIZES, make_batch, make_model
from bench_floor import by_hand, timed, with_gradient

from mrsds_ppl.ppl.markov import PathLaw

BUDGET = 1.25


@pytest.mark.slow
@pytest.mark.parametrize("num_states", [2, 5, 12] if FULL else [3])
def test_enumerated_density(benchmark, num_states):
    sizes = SIZES._replace(states=num_states, latents=2)
    model, batch = make_model(sizes), jax.device_put(make_batch(sizes, sizes.trials))
    shape = (sizes.trials, sizes.bins, model.num_latents)
    path = jax.random.normal(jax.random.key(5), shape)

    def enumerated(networks, path):
        return PathLaw(model.switching(networks, batch)).log_prob(path).sum()

    ours, arrays = with_gradient(enumerated, model.networks)
    hand, _ = with_gradient(by_hand, model.networks)
    value, gradient = ours(arrays, path)
    expected, expected_gradient = hand(arrays, path)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1e-3, float(jnp.abs(b).max())))

    laps = np.array([[timed(function, arrays, path) for function in (ours, hand)] for _ in range(30 if FULL else 2)])
    seconds = np.median(laps, axis=0)
    ratio = seconds[0] / seconds[1]
    benchmark.pedantic(timed, (ours, arrays, path), rounds=20 if FULL else 1, iterations=1)
    benchmark.extra_info.update(
        enumerated_ms=round(1e3 * seconds[0], 1),
        by_hand_ms=round(1e3 * seconds[1], 1),
        ratio=round(ratio, 2),
        budget=BUDGET,
    )
    if FULL:
        assert ratio <= BUDGET
