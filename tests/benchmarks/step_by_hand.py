"""A training step of the default program and guide in plain JAX, as one would write it for one recording.

The same mathematics and the same random law as `bench_case.make_step`: convolution encoder, Gaussian Markov guide,
additive messages (hidden layers of each message, or those of a source for all its targets), Gaussian signals, regions
of equal sizes, z summed by the forward algorithm, Adam. Nothing of the package is called.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random

DILATIONS, EMBEDDED, CHANNELS, TAPS, HIDDEN = (1, 2, 4, 8), 16, 32, 3, (32, 32)


def first_params(sizes, shared):
    """Weights of all parts, by name."""
    rng, latents = np.random.default_rng(0), sizes.regions * sizes.latents
    neurons, states, width = sizes.neurons // sizes.regions, sizes.states, sizes.latents
    pairs = (states, sizes.regions) if shared else (states, sizes.regions, sizes.regions)

    def drawn(*shape, scale=None):
        scale = 1 / math.sqrt(shape[-2]) if scale is None else scale
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    heads = 2 * latents + latents**2 + latents * (latents - 1) // 2
    return {
        "embedding": drawn(sizes.regions, neurons, EMBEDDED),
        "embedding_bias": jnp.zeros((sizes.regions, EMBEDDED)),
        "enter": drawn(sizes.regions * EMBEDDED, CHANNELS),
        "enter_bias": jnp.zeros(CHANNELS),
        "filters": [drawn(CHANNELS, TAPS * CHANNELS) for _ in DILATIONS],
        "mixers": [drawn(CHANNELS, CHANNELS, scale=0.1) for _ in DILATIONS],
        "mixer_biases": [jnp.zeros(CHANNELS) for _ in DILATIONS],
        "head": drawn(CHANNELS, heads, scale=0.02),
        "head_bias": jnp.zeros(heads),
        "direct": drawn(sizes.neurons, latents, scale=0.01),
        "first_logits": jnp.zeros(states),
        "first_means": drawn(states, latents, scale=0.1),
        "first_noise": jnp.ones(latents),
        "moves": drawn(latents, states**2, scale=0.01),
        "moves_bias": jnp.zeros((states, states)),
        "hidden": [drawn(*pairs, a, b) for a, b in zip((width, *HIDDEN[:-1]), HIDDEN, strict=True)],
        "hidden_biases": [drawn(*pairs, b, scale=0.3) for b in HIDDEN],
        # (state, source, hidden, target and latent), or (state, target, source, hidden, latent).
        "told": drawn(*pairs, HIDDEN[-1], latents if shared else width, scale=0.02),
        "told_bias": jnp.zeros((states, sizes.regions, width)),
        "noise": jnp.full(latents, -1.0),
        "readout": drawn(sizes.regions, width, neurons, scale=1.0),
        "readout_bias": jnp.zeros(sizes.neurons),
        "signal_noise": jnp.full(sizes.neurons, 0.5),
    }


def normal(value, mean, scale):
    return -0.5 * (((value - mean) / scale) ** 2).sum(-1) - jnp.log(scale).sum(-1) - 0.919 * value.shape[-1]


def encoded(params, y, sizes):
    by_region = y.reshape(*y.shape[:2], sizes.regions, -1)
    h = jnp.einsum("btrn,rnf->btrf", by_region, params["embedding"]) + params["embedding_bias"]
    h = h.reshape(*y.shape[:2], -1) @ params["enter"] + params["enter_bias"]
    bins = y.shape[1]
    parts = zip(DILATIONS, params["filters"], params["mixers"], params["mixer_biases"], strict=True)
    for dilation, filters, mixer, bias in parts:
        wide = jnp.pad(h @ filters, ((0, 0), (dilation, dilation), (0, 0)))
        taps = [wide[:, k * dilation : k * dilation + bins, k * CHANNELS : (k + 1) * CHANNELS] for k in range(TAPS)]
        h = h + jax.nn.relu(sum(taps)) @ mixer + bias
    return h @ params["head"] + params["head_bias"]


def drawn_path(key, numbers, direct):
    """A path of the guide and its log density."""
    latents = direct.shape[-1]
    mean, raw, gains, lower = jnp.split(numbers, np.cumsum([latents, latents, latents**2]), axis=-1)
    mean = mean + direct
    scale = jax.nn.softplus(raw - 1.05) + 1e-3
    gain = gains * lax.rsqrt(1 + (gains**2).sum(-1, keepdims=True) / (1.44 * latents))
    gain = gain.reshape(*mean.shape, latents)
    rows, columns = np.tril_indices(latents, -1)
    eps = random.normal(key, mean.shape)
    below = jnp.zeros((*mean.shape, latents)).at[..., rows, columns].set(lower)
    noise = scale * eps + (below * eps[..., None, :]).sum(-1)

    def step(before, now):
        gain, noise = now
        after = (gain * before[:, None]).sum(-1) + noise
        return after, after

    first = jnp.zeros_like(noise[:, 0])
    _, path = lax.scan(step, first, (jnp.swapaxes(gain, 0, 1), jnp.swapaxes(noise, 0, 1)))
    log_density = (-0.5 * eps**2 - 0.919 - jnp.log(scale)).sum((1, 2))
    return mean + jnp.swapaxes(path, 0, 1), log_density


def means(params, x, sizes, shared):
    """f_k(x) of rows: (state, row, latent)."""
    own = jnp.swapaxes(x.reshape(len(x), sizes.regions, sizes.latents), 0, 1)
    h = own[None] if shared else own[None, None]
    layers, biases = params["hidden"], params["hidden_biases"]
    for weight, bias in zip(layers, biases, strict=True):
        h = jax.nn.relu(jnp.einsum("...nh,...hg->...ng", h, weight) + bias[..., None, :])
    if shared:
        told = jnp.einsum("ksnh,ksho->kno", h, params["told"])
    else:
        told = jnp.einsum("krsnh,krshd->knrd", h, params["told"]).reshape(sizes.states, len(x), -1)
    return x + told + params["told_bias"].reshape(sizes.states, 1, -1)


def log_path(params, x, sizes, shared):
    """log p(x) of each trial."""
    before = x[:, :-1].reshape(-1, x.shape[-1])
    expected = means(params, before, sizes, shared).reshape(sizes.states, len(x), -1, x.shape[-1])
    evidence = normal(x[:, 1:], expected, jax.nn.softplus(params["noise"]))
    moves = (before @ params["moves"]).reshape(len(x), -1, sizes.states, sizes.states) + params["moves_bias"]
    moves = jax.nn.log_softmax(moves, axis=-1)
    first = normal(x[:, :1], params["first_means"], jax.nn.softplus(params["first_noise"]))

    def forward(alpha, now):
        move, score = now
        return jax.nn.logsumexp(alpha[:, :, None] + move, axis=1) + score, None

    bins = (jnp.swapaxes(moves, 0, 1), jnp.transpose(evidence, (2, 1, 0)))
    last, _ = lax.scan(forward, first + jax.nn.log_softmax(params["first_logits"]), bins)
    return jax.nn.logsumexp(last, axis=-1)


def log_signals(params, x, y, sizes):
    own = x.reshape(*x.shape[:2], sizes.regions, sizes.latents)
    mean = jnp.einsum("btrd,rdn->btrn", own, params["readout"]).reshape(y.shape) + params["readout_bias"]
    return normal(y, mean, jax.nn.softplus(params["signal_noise"])).sum(-1)


def make_by_hand(sizes, shared):
    """A function (state, y) -> (state, losses) of `sizes.steps` steps, and its first state."""
    adam = optax.chain(optax.clip(10.0), optax.adam(1e-3))

    def loss(params, key, y):
        x, log_q = drawn_path(key, encoded(params, y, sizes), y @ params["direct"])
        return -(log_path(params, x, sizes, shared) + log_signals(params, x, y, sizes) - log_q).sum() / y.size

    def step(carry, key, y):
        params, state = carry
        index_key, draw_key = random.split(key)
        index = random.choice(index_key, len(y), (sizes.trials,), replace=False)
        value, gradient = jax.value_and_grad(loss)(params, draw_key, y[index])
        updates, state = adam.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    def run(carry, key, y):
        return lax.scan(lambda carry, key: step(carry, key, y), carry, random.split(key, sizes.steps))

    params = first_params(sizes, shared)
    return jax.jit(run), (params, adam.init(params))
