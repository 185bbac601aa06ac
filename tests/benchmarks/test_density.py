"""The enumerated density of a path, value and gradient, against a forward algorithm written by hand for this model.

Both use the same networks and are timed in turns in the same run, so that what else the machine does strikes both.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_case import FULL, SIZES, make_batch, make_model

from mrsds_ppl.ppl.markov import PathLaw

BUDGET = 1.25


def by_hand(networks, path):
    """log p(x) of whole trials, summed: no handlers and no custom derivative; states stand last."""
    before, after = path[:, :-1], path[:, 1:]
    noise = networks.dynamics.noise.scale

    def normal(value, mean, scale):
        return -0.5 * (((value - mean) / scale) ** 2 + jnp.log(2 * jnp.pi)).sum(-1) - jnp.log(scale).sum()

    moves = jax.nn.log_softmax(networks.transitions.logits(before), axis=-1)  # (from, trial, bin, to)
    means = networks.dynamics.means(before, jnp.zeros((*before.shape[:2], 0)))  # (to, trial, bin, latent)
    evidence = jnp.transpose(normal(after, means, noise), (2, 1, 0))
    moves = jnp.transpose(moves, (2, 1, 0, 3))

    def forward(alpha, now):
        move, score = now
        return jax.nn.logsumexp(alpha[:, :, None] + move, axis=1) + score, None

    first = normal(path[:, :1], networks.initial.means, networks.initial.noise.scale)
    first = first + jax.nn.log_softmax(networks.initial.state_logits)
    last, _ = jax.lax.scan(forward, first, (moves, evidence))
    return jax.nn.logsumexp(last, axis=-1).sum()


@pytest.mark.slow
@pytest.mark.parametrize("num_states", [2, 5, 12] if FULL else [3])
def test_enumerated_density(benchmark, num_states):
    sizes = SIZES._replace(states=num_states, latents=2)
    model, batch = make_model(sizes), jax.device_put(make_batch(sizes, sizes.trials))
    shape = (sizes.trials, sizes.bins, model.num_latents)
    path = jax.random.normal(jax.random.key(5), shape)

    def enumerated(networks, path):
        return PathLaw(model.switching(networks, batch)).log_prob(path).sum()

    arrays, rest = eqx.partition(model.networks, eqx.is_inexact_array)

    def compiled(density):
        def of(arrays, path):
            return density(eqx.combine(arrays, rest), path)

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1)))

    ours, hand = compiled(enumerated), compiled(by_hand)
    value, gradient = ours(arrays, path)
    expected, expected_gradient = hand(arrays, path)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1e-3, float(jnp.abs(b).max())))

    def lap(function):
        start = time.perf_counter()
        jax.block_until_ready(function(arrays, path))
        return time.perf_counter() - start

    laps = np.array([(lap(ours), lap(hand)) for _ in range(30 if FULL else 2)])
    seconds = np.median(laps, axis=0)
    ratio = seconds[0] / seconds[1]
    benchmark.pedantic(lambda: lap(ours), rounds=20 if FULL else 1, iterations=1)
    benchmark.extra_info.update(
        enumerated_ms=round(1e3 * seconds[0], 1),
        by_hand_ms=round(1e3 * seconds[1], 1),
        ratio=round(ratio, 2),
        budget=BUDGET,
    )
    if FULL:
        assert ratio <= BUDGET
