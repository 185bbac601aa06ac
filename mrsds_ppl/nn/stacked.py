"""Many small multilayer perceptrons evaluated as one: every layer is one batched matrix product.

Rows are data: an input has shape (*stack, row, feature). Every layer is left a plain matrix product even where it has
one input: written as a scaled sum its gradient becomes a reduction over all rows, several times slower on a CPU.
Networks that differ only by an offset per state (one-hot z given to each layer) share their weights along the state
axis, which then has size one.
"""

from collections.abc import Sequence
from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.nn import draws
from mrsds_ppl.nn.activations import ACTIVATIONS


class StackedMLP(eqx.Module):
    """A stack of perceptrons h -> activation(h W + b), with leading stack axes on weights and biases.

    Args:
        stack: leading axes, for example (state, target, source).
        sizes: width of the input, the hidden layers and the output.
        activations: name of the activation after each layer (``None`` for linear).
        key: random key; weights are drawn N(0, gain / fan-in), biases are zero.
        bias: whether layers have a bias.
        shared_weights: weights shared along the first stack axis; its entries differ by their biases alone.
        output_scale: factor on the initial weights of the last layer.
    """

    weights: list[Float[Array, "..."]]
    biases: list[Float[Array, "..."]] | None
    activations: tuple[str | None, ...] = eqx.field(static=True)

    def __init__(
        self,
        stack: Sequence[int],
        sizes: Sequence[int],
        activations: Sequence[str | None],
        *,
        key: PRNGKeyArray,
        bias: bool = True,
        shared_weights: bool = False,
        output_scale: float = 1.0,
    ) -> None:
        weight_stack = (1, *stack[1:]) if shared_weights else tuple(stack)
        self.activations = tuple(activations)
        self.weights = []
        keys = draws.split(key, 2 * (len(sizes) - 1))
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            gain = 2.0 if self.activations[layer] == "relu" else 1.0
            scale = (gain / max(fan_in, 1)) ** 0.5 * (output_scale if layer == len(sizes) - 2 else 1.0)
            self.weights.append(draws.normal(keys[2 * layer], (*weight_stack, fan_in, fan_out), scale))
        # Hidden units of a network with one input need offsets to bend in different places.
        self.biases = None
        if bias or shared_weights:
            self.biases = [
                draws.normal(keys[2 * layer + 1], (*stack, fan_out), 0.3 if layer < len(sizes) - 2 else 0.0)
                for layer, fan_out in enumerate(sizes[1:])
            ]

    def __call__(self, x: Float[Array, "*stack row feature"]) -> Float[Array, "*full_stack row output"]:
        for layer, weight in enumerate(self.weights):
            stack = jnp.broadcast_shapes(weight.shape[:-2], x.shape[:-2])
            x = jnp.broadcast_to(x, (*stack, *x.shape[-2:])) @ jnp.broadcast_to(weight, (*stack, *weight.shape[-2:]))
            if self.biases is not None:
                x = x + self.biases[layer][..., None, :]
            x = ACTIVATIONS[self.activations[layer]](x)
        return lax.optimization_barrier(x)

    def added_up(self, x: Float[Array, "first 1 source row feature"]) -> Float[Array, "full_first target row output"]:
        """What networks of one layer say to each target, added up over sources: one matrix product, not one of each.

        For a stack (first, target, source) of linear networks that read the same of a source, whoever the target is.

        Args:
            x: what each source sends.
        """
        (weight,) = self.weights
        first, targets, _, _, width = weight.shape
        by_row = jnp.swapaxes(x[:, 0], 1, 2).reshape(x.shape[0], x.shape[3], -1)
        by_output = jnp.moveaxis(weight, 1, 3).reshape(first, -1, targets * width)
        total = jnp.matmul(by_row, by_output).reshape(-1, x.shape[3], targets, width)
        total = jnp.swapaxes(total, 1, 2)
        return total if self.biases is None else total + self.biases[0].sum(2)[:, :, None]
