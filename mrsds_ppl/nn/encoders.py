"""Encoders: features of every bin from the whole trial, for guides to read the posterior off.

An encoder takes standardised signals (missing entries zero), inputs and lengths, and returns (trial, bin, feature).
Nothing of a padded bin reaches a valid one. A new encoder is one class here and one line in :data:`ENCODERS`.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mrsds_ppl.nn import draws
from mrsds_ppl.nn.activations import ACTIVATIONS
from mrsds_ppl.nn.options import EncoderOptions as EncoderOptions


class Linear(eqx.Module):
    """Affine map of the last axis."""

    weight: Float[Array, "fan_in fan_out"]
    bias: Float[Array, " fan_out"]

    def __init__(self, fan_in: int, fan_out: int, *, key: PRNGKeyArray, scale: float = 1.0) -> None:
        self.weight = draws.normal(key, (fan_in, fan_out), scale / np.sqrt(max(fan_in, 1)))
        self.bias = jnp.zeros(fan_out)

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        return x @ self.weight + self.bias


class RegionEmbedding(eqx.Module):
    """Perceptron of each region's neurons; all regions in one product with a block-diagonal weight."""

    weights: list[Float[Array, "fan_in fan_out"]]
    biases: list[Float[Array, " fan_out"]]
    activations: tuple[str | None, ...] = eqx.field(static=True)
    region_sizes: tuple[int, ...] = eqx.field(static=True)
    layers: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, region_sizes: Sequence[int], layers: Sequence[int], activations: Sequence[str | None], key: PRNGKeyArray
    ) -> None:
        self.region_sizes, self.layers, self.activations = tuple(region_sizes), tuple(layers), tuple(activations)
        self.weights, self.biases = [], []
        keys = draws.split(key, len(self.layers))
        for index, block in enumerate(self._blocks()):
            fan_in = block.sum(0, keepdims=True)
            self.weights.append(draws.normal(keys[index], block.shape, block / np.sqrt(fan_in)))
            self.biases.append(jnp.zeros(block.shape[1]))

    def __call__(self, y: Float[Array, "*batch neuron"]) -> Float[Array, "*batch feature"]:
        for weight, bias, block, name in zip(self.weights, self.biases, self._blocks(), self.activations, strict=True):
            y = ACTIVATIONS[name](y @ (weight * block) + bias)
        return y

    def _blocks(self) -> list[np.ndarray]:
        owners = [np.repeat(np.arange(len(self.region_sizes)), self.region_sizes)]
        owners += [np.repeat(np.arange(len(self.region_sizes)), width) for width in self.layers]
        return [a[:, None] == b[None] for a, b in pairwise(owners)]


class ConvolutionEncoder(eqx.Module):
    """Region embeddings, then residual blocks of dilated convolutions over time: linear in the number of bins."""

    embedding: RegionEmbedding
    enter: Linear
    filters: list[Float[Array, "tap_channel channel"]]
    mixers: list[Linear]
    dilations: tuple[int, ...] = eqx.field(static=True)
    num_features: int = eqx.field(static=True)

    def __init__(
        self, region_sizes: Sequence[int], num_inputs: int, options: EncoderOptions, *, key: PRNGKeyArray
    ) -> None:
        keys = draws.split(key, 2 + 2 * len(options.dilations))
        layers, width = options.embedding_layers, options.channels
        self.embedding = RegionEmbedding(region_sizes, layers, options.embedding_activations or (), keys[0])
        self.enter = Linear(layers[-1] * len(region_sizes) + num_inputs, width, key=keys[1])
        fan_in = options.kernel_size * width
        self.filters = [draws.normal(k, (fan_in, width), np.sqrt(2 / fan_in)) for k in keys[2::2]]
        self.mixers = [Linear(width, width, key=k, scale=0.5) for k in keys[3::2]]
        self.dilations, self.num_features = tuple(options.dilations), width

    def __call__(
        self, y: Float[Array, "trial bin neuron"], u: Float[Array, "trial bin input"], lengths: Int[Array, " trial"]
    ) -> Float[Array, "trial bin feature"]:
        valid = (jnp.arange(y.shape[1]) < lengths[:, None])[..., None]
        h = self.enter(jnp.concatenate([self.embedding(y), u], axis=-1))
        for taps, mixer, dilation in zip(self.filters, self.mixers, self.dilations, strict=True):
            h = h * valid
            h = h + mixer(jax.nn.relu(_convolved(h, taps, dilation)))
        return h


def _convolved(h: Array, taps: Array, dilation: int) -> Array:
    """sum_k h_{t + (k - K // 2) dilation} T_k, the T_k below one another in ``taps``.

    Products before shifts: one large matrix product, whose gradient is another, where products of shifted bins would
    leave a sum of shifts for every weight behind them to add up again.
    """
    num_bins, channels = h.shape[1:]
    num_taps = taps.shape[0] // channels
    reach = num_taps // 2 * dilation
    wide = jnp.swapaxes(taps.reshape(num_taps, channels, -1), 0, 1).reshape(channels, -1)
    products = jnp.split(jnp.pad(h @ wide, ((0, 0), (reach, reach), (0, 0))), num_taps, axis=-1)
    shifted = (product[:, k * dilation : k * dilation + num_bins] for k, product in enumerate(products))
    return reduce(jnp.add, shifted)


class TransformerEncoder(eqx.Module):
    """Region embeddings, then the published transformer blocks, with a positional code of the bins."""

    embedding: RegionEmbedding
    blocks: list["TransformerBlock"]
    mlp: list[Linear]
    positional: str = eqx.field(static=True)
    num_features: int = eqx.field(static=True)

    def __init__(
        self, region_sizes: Sequence[int], num_inputs: int, options: EncoderOptions, *, key: PRNGKeyArray
    ) -> None:
        keys = draws.split(key, 3)
        layers = options.embedding_layers
        self.embedding = RegionEmbedding(region_sizes, layers, options.embedding_activations or (), keys[0])
        width = layers[-1] * len(region_sizes) + num_inputs
        block_keys = draws.split(keys[1], options.num_transformer_blocks)
        self.blocks = [TransformerBlock(width, options, key=k) for k in block_keys]
        widths = [width, *options.mlp_units]
        mlp_keys = draws.split(keys[2], len(widths))
        self.mlp = [Linear(a, b, key=k) for a, b, k in zip(widths[:-1], widths[1:], mlp_keys, strict=False)]
        self.positional, self.num_features = options.positional, widths[-1]

    def __call__(
        self, y: Float[Array, "trial bin neuron"], u: Float[Array, "trial bin input"], lengths: Int[Array, " trial"]
    ) -> Float[Array, "trial bin feature"]:
        h = jnp.concatenate([self.embedding(y), u], axis=-1)
        if self.positional == "sinusoidal":
            h = h + _sinusoids(h.shape[1], h.shape[2])
        valid = jnp.arange(h.shape[1]) < lengths[:, None]
        for block in self.blocks:
            h = block(h, valid)
        for layer in self.mlp:
            h = jax.nn.relu(layer(h))
        return h


class TransformerBlock(eqx.Module):
    """Pre-norm attention over bins and a position-wise perceptron, both residual."""

    queries: Float[Array, "width head_feature"]
    keys: Float[Array, "width head_feature"]
    values: Float[Array, "width head_feature"]
    merge: Linear
    widen: Linear
    narrow: Linear
    gains: list[Float[Array, " width"]]
    num_heads: int = eqx.field(static=True)

    def __init__(self, width: int, options: EncoderOptions, *, key: PRNGKeyArray) -> None:
        keys = draws.split(key, 6)
        inner = options.num_heads * options.head_size
        scale = 1 / np.sqrt(width)
        self.queries, self.keys, self.values = (draws.normal(k, (width, inner), scale) for k in keys[:3])
        self.merge = Linear(inner, width, key=keys[3])
        self.widen = Linear(width, options.ff_dim, key=keys[4])
        self.narrow = Linear(options.ff_dim, width, key=keys[5])
        self.gains = [jnp.ones(width), jnp.ones(width)]
        self.num_heads = options.num_heads

    def __call__(self, h: Float[Array, "trial bin width"], valid: Array) -> Float[Array, "trial bin width"]:
        normed = _layer_norm(h) * self.gains[0]
        heads = (self.num_heads, -1)
        q, k, v = (
            jnp.moveaxis((normed @ w).reshape(*h.shape[:2], *heads), 2, 1)
            for w in (self.queries / np.sqrt(self.queries.shape[1] // self.num_heads), self.keys, self.values)
        )
        scores = q @ jnp.swapaxes(k, -1, -2)
        scores = jnp.where(valid[:, None, None, :], scores, -1e9)
        weighted = jnp.moveaxis(jax.nn.softmax(scores, axis=-1) @ v, 1, 2)
        h = h + self.merge(weighted.reshape(*h.shape[:2], -1))
        return h + self.narrow(jax.nn.relu(self.widen(_layer_norm(h) * self.gains[1])))


def _layer_norm(h: Array) -> Array:
    centred = h - h.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def _sinusoids(num_bins: int, width: int) -> Array:
    """Sines and cosines of the bin at wavelengths from 2 pi to 10,000 bins (Vaswani et al., 2017)."""
    rates = 1e4 ** (-np.arange((width + 1) // 2) / max((width + 1) // 2, 1))
    angles = np.arange(num_bins)[:, None] * rates
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width], jnp.zeros(()).dtype)


ENCODERS: dict[str, type[ConvolutionEncoder] | type[TransformerEncoder]] = {
    "convolution": ConvolutionEncoder,
    "transformer": TransformerEncoder,
}
