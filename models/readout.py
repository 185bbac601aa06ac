"""From latents to neurons: an affine map, or a perceptron, of each region."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.nn import draws
from mrsds_ppl.nn.stacked import StackedMLP


class Readout(eqx.Module):
    """C_r for all regions at once: each neuron sees the latents of its own region alone.

    Args:
        region_sizes: neurons of each region.
        latent_sizes: latents of each region; a single pooled latent has one entry and is seen by all neurons.
        layers, activations: hidden layers of each region's perceptron; empty for an affine map.
        key: random key.
    """

    hidden: StackedMLP | None
    weight: Float[Array, "neuron feature"]
    bias: Float[Array, " neuron"]
    region_sizes: tuple[int, ...] = eqx.field(static=True)
    latent_sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        region_sizes: Sequence[int],
        latent_sizes: Sequence[int],
        layers: Sequence[int],
        activations: Sequence[str | None],
        *,
        key: PRNGKeyArray,
    ) -> None:
        self.region_sizes = tuple(region_sizes)
        self.latent_sizes = tuple(latent_sizes)
        hidden_key, weight_key = draws.split(key, 2)
        self.hidden = None
        if layers:
            sizes = (max(latent_sizes), *layers)
            self.hidden = StackedMLP((len(latent_sizes),), sizes, activations, key=hidden_key)
        features = layers[-1] if layers else max(latent_sizes)
        self.weight = draws.normal(weight_key, (sum(region_sizes), features), 1 / np.sqrt(features))
        self.bias = jnp.zeros(sum(region_sizes))

    def __call__(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        features = self._by_region(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
        if self.hidden is not None:
            features = self.hidden(features)
        regions, _, width = features.shape
        neurons = np.arange(self.weight.shape[0])
        spread = jnp.zeros((regions, width, len(neurons)), x.dtype)
        spread = spread.at[self.owner(), :, neurons].set(self.weight).reshape(regions * width, -1)
        flat = jnp.swapaxes(features, 0, 1).reshape(-1, regions * width)
        return (flat @ spread + self.bias).reshape(*x.shape[:-1], len(neurons))

    def with_affine(
        self, bias: Float[np.ndarray, " neuron"], loadings: Float[np.ndarray, "neuron latent"]
    ) -> "Readout":
        """The readout bias + loadings x; a perceptron takes the bias alone.

        Args:
            bias: of each neuron.
            loadings: of all latents, of which a neuron uses those of its own region.
        """
        readout = eqx.tree_at(lambda r: r.bias, self, jnp.asarray(bias, jnp.float32))
        if self.hidden is not None:
            return readout
        starts, owner, weight = np.cumsum((0, *self.latent_sizes)), self.owner(), np.zeros(self.weight.shape)
        for region, size in enumerate(self.latent_sizes):
            own = owner == region
            weight[own, :size] = loadings[own, starts[region] : starts[region] + size]
        return eqx.tree_at(lambda r: r.weight, readout, jnp.asarray(weight, jnp.float32))

    def owner(self) -> np.ndarray:
        """Number of the region whose latents each neuron sees."""
        if len(self.latent_sizes) == 1:
            return np.zeros(sum(self.region_sizes), int)
        return np.repeat(np.arange(len(self.region_sizes)), self.region_sizes)

    def _by_region(self, rows: Array) -> Array:
        """(row, latent) -> (region, row, widest), zeros where a region is narrower than the widest."""
        regions, width = len(self.latent_sizes), max(self.latent_sizes)
        if min(self.latent_sizes) != width:
            slots = np.concatenate([r * width + np.arange(size) for r, size in enumerate(self.latent_sizes)])
            rows = jnp.zeros((rows.shape[0], regions * width), rows.dtype).at[:, slots].set(rows)
        return jnp.swapaxes(rows.reshape(-1, regions, width), 0, 1)
