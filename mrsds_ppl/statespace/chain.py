"""Sums over the paths of a discrete Markov chain: the algebra, without any probabilistic program.

A chain of T bins and K states is given by log potentials; a path z_1 ... z_T has the unnormalised log weight

    log w(z) = initial[z_1] + sum_{t=2}^{T} ( transition[t, z_{t-1}, z_t] + evidence[t, z_t] ).

Batch axes stand last, so that the small sums over states run along the long axis of memory. Index order of every
transition array: bin, from, to, batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

# Stands for "impossible" and stays finite when a whole trial of such terms is added in float32.
_IMPOSSIBLE = -1e30


class Chain(NamedTuple):
    """Log potentials of a chain; bins 2 ... T of ``transition`` and ``evidence`` have index 0 ... T-2."""

    initial: Float[Array, "state *batch"]
    transition: Float[Array, "bin from to *batch"]
    evidence: Float[Array, "bin state *batch"]


class Filtered(NamedTuple):
    """Forward pass: log sum_z w(z), log of the filtered weight of each last state, and the backward kernels.

    ``kernels[t, j, k]`` = p(z_t = j | z_{t+1} = k, all evidence up to t+1).
    """

    log_normalizer: Float[Array, "*batch"]
    log_last: Float[Array, "state *batch"]
    kernels: Float[Array, "bin from to *batch"]


class Smoothed(NamedTuple):
    """p(z_t = k | all evidence), p(z_t = j, z_{t+1} = k | all evidence), and log sum_z w(z)."""

    marginals: Float[Array, "bin state *batch"]
    pairwise: Float[Array, "bin_pair from to *batch"]
    log_normalizer: Float[Array, "*batch"]


def hold_after(chain: Chain, lengths: Int[Array, "*batch"]) -> Chain:
    """Bins at or after a trial's length keep the state and carry no evidence: they change no sum.

    Args:
        chain: log potentials of padded trials.
        lengths: number of valid bins of each trial, at least 1.
    """
    num_pairs, num_states = chain.evidence.shape[:2]
    ndim = chain.initial.ndim - 1
    bins = jnp.arange(1, num_pairs + 1).reshape((-1,) + (1,) * (ndim + 2))
    valid = bins < lengths
    stay = jnp.where(jnp.eye(num_states, dtype=bool), 0.0, _IMPOSSIBLE).reshape((num_states, num_states) + (1,) * ndim)
    return Chain(
        chain.initial,
        jnp.where(valid, chain.transition, stay.astype(chain.transition.dtype)),
        jnp.where(valid[:, 0], chain.evidence, 0.0),
    )


def forward_filter(chain: Chain) -> Filtered:
    """Forward algorithm, bin after bin: O(T K^2) work, O(T) depth.

    alpha_t(k) = logsumexp_j( alpha_{t-1}(j) + transition[t, j, k] ) + evidence[t, k]
    """

    def step(alpha, potentials):
        transition, evidence = potentials
        scores = alpha[:, None] + transition
        top = lax.stop_gradient(jnp.max(scores, axis=0))
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=0)
        return top + jnp.log(total) + evidence, weights / total

    last, kernels = lax.scan(step, chain.initial, (chain.transition, chain.evidence))
    return Filtered(jax.nn.logsumexp(last, axis=0), last, kernels)


def smooth(chain: Chain) -> Smoothed:
    """Smoothed and pairwise state probabilities by the backward kernels of the forward pass.

    xi_t(j, k) = p(z_t = j | z_{t+1} = k) gamma_{t+1}(k),    gamma_t(j) = sum_k xi_t(j, k).
    """
    filtered = forward_filter(chain)
    marginals, pairwise = _backward(filtered)
    return Smoothed(marginals, pairwise, filtered.log_normalizer)


def _backward(filtered: Filtered):
    last = jnp.exp(filtered.log_last - filtered.log_normalizer)

    def step(gamma, kernel):
        joint = kernel * gamma
        previous = jnp.sum(joint, axis=1)
        return previous, (previous, joint)

    _, (earlier, pairwise) = lax.scan(step, last, filtered.kernels, reverse=True)
    return jnp.concatenate([earlier, last[None]]), pairwise


@jax.custom_vjp
def sequential_log_normalizer(chain: Chain) -> Float[Array, "*batch"]:
    """log sum_z w(z), bin after bin. Its gradient in the log potentials is the smoothed probabilities, exactly."""
    return forward_filter(chain).log_normalizer


def _sequential_fwd(chain: Chain):
    filtered = forward_filter(chain)
    return filtered.log_normalizer, filtered


def _sequential_bwd(filtered: Filtered, cotangent):
    marginals, pairwise = _backward(filtered)
    return (Chain(cotangent * marginals[0], cotangent * pairwise, cotangent * marginals[1:]),)


sequential_log_normalizer.defvjp(_sequential_fwd, _sequential_bwd)


def parallel_log_normalizer(chain: Chain) -> Float[Array, "*batch"]:
    """log sum_z w(z) by a balanced tree of K x K products: O(T K^3) work, O(log T) depth; the one for a GPU.

    Source: Särkkä and García-Fernández, "Temporal parallelization of Bayesian smoothers", IEEE TAC 2021.
    """
    pairs = chain.transition + chain.evidence[:, None]

    def product(left, right):
        return jax.nn.logsumexp(left[:, :, :, None] + right[:, None], axis=2)

    while pairs.shape[0] > 1:
        even = pairs.shape[0] // 2 * 2
        reduced = product(pairs[0:even:2], pairs[1:even:2])
        pairs = jnp.concatenate([reduced, pairs[even:]])
    if pairs.shape[0] == 0:
        return jax.nn.logsumexp(chain.initial, axis=0)
    return jax.nn.logsumexp(chain.initial[:, None] + pairs[0], axis=(0, 1))


LogNormalizer = Callable[[Chain], Array]


def most_likely_path(chain: Chain) -> Int[Array, "bin *batch"]:
    """argmax_z w(z) (Viterbi)."""

    def step(best, potentials):
        transition, evidence = potentials
        scores = best[:, None] + transition
        return jnp.max(scores, axis=0) + evidence, jnp.argmax(scores, axis=0)

    best, origins = lax.scan(step, chain.initial, (chain.transition, chain.evidence))
    last = jnp.argmax(best, axis=0)

    def back(state, origin):
        previous = jnp.take_along_axis(origin, state[None], axis=0)[0]
        return previous, previous

    _, earlier = lax.scan(back, last, origins, reverse=True)
    return jnp.concatenate([earlier, last[None]])


def sample_path(key: PRNGKeyArray | Shaped[Array, "2"], chain: Chain) -> Int[Array, "bin *batch"]:
    """One path z ~ w(z) / sum w for each batch element: forward filtering, backward sampling."""
    filtered = forward_filter(chain)
    last_key, *_ = keys = jax.random.split(key, filtered.kernels.shape[0] + 1)
    last = jax.random.categorical(last_key, filtered.log_last, axis=0)

    def back(state, kernel_and_key):
        kernel, bin_key = kernel_and_key
        column = jnp.take_along_axis(kernel, state[None, None], axis=1)[:, 0]
        previous = jax.random.categorical(bin_key, jnp.log(column), axis=0)
        return previous, previous

    _, earlier = lax.scan(back, last, (filtered.kernels, jnp.stack(keys[1:])), reverse=True)
    return jnp.concatenate([earlier, last[None]])


def path_log_weight(chain: Chain, path: Int[Array, "bin *batch"]) -> Float[Array, "*batch"]:
    """log w(z) of given paths, by the definition at the head of this file."""
    initial = jnp.take_along_axis(chain.initial, path[:1], axis=0)[0]
    leaving = jnp.take_along_axis(chain.transition, path[:-1, None, None], axis=1)
    moves = jnp.take_along_axis(leaving, path[1:, None, None], axis=2)[:, 0, 0]
    evidence = jnp.take_along_axis(chain.evidence, path[1:, None], axis=1)[:, 0]
    return initial + jnp.sum(moves + evidence, axis=0)
