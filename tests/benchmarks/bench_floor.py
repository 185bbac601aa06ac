"""The floor of the times: one density of a path, value and gradient, by a forward algorithm written by hand.

What a step of training must at least do, in the sizes of the case. Budgets are multiples of it, measured in turns with
what they are for, so that they hold on any machine.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp


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


def with_gradient(density, networks):
    """The compiled value and gradient of a density (networks, path) and the arrays of the networks to call it with."""
    arrays, rest = eqx.partition(networks, eqx.is_inexact_array)
    compiled = jax.jit(
        jax.value_and_grad(lambda arrays, path: density(eqx.combine(arrays, rest), path), argnums=(0, 1))
    )
    return compiled, arrays


def make_floor(model, sizes):
    """A function that takes one lap and returns its seconds; compiled already."""
    path = jax.random.normal(jax.random.key(5), (sizes.trials, sizes.bins, model.num_latents))
    compiled, arrays = with_gradient(by_hand, model.networks)

    def lap():
        return timed(compiled, arrays, path)

    lap()
    return lap


def timed(function, *args):
    """Seconds until all that a function returns is there."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start
