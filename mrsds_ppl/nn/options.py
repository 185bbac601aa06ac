"""Layers, activations and encoders as plain options; the networks themselves are in the files beside this one.

No JAX here: the sections of a configuration are these classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, with_config

from mrsds_ppl.quantities import Count

__all__ = ["Activation", "EncoderOptions", "Layers", "section", "with_output"]

Activation = Literal["relu", "tanh", "gelu", "softplus", "elu", "sigmoid", None]
Layers = tuple[Count, ...]

# A class of options as a section of the configuration: a key that it does not know is refused.
section = with_config(ConfigDict(extra="forbid"))


def hidden_activations(
    key: str, layers: Sequence[int], activations: Sequence[Activation] | None
) -> tuple[Activation, ...]:
    """One activation for each hidden layer: relu where none are given; the None of a linear output may follow them.

    Raises:
        ValueError: their number is another.
    """
    relu: Activation = "relu"
    given = [relu] * len(layers) if activations is None else list(activations)
    if len(given) == len(layers) + 1 and given[-1] is None:
        given.pop()
    if len(given) != len(layers):
        raise ValueError(
            f"{key}: found {len(given)} entries for {len(layers)} layers; allowed: one for each of layers, and after "
            "them a null for the output layer"
        )
    return tuple(given)


def with_output(activations: Sequence[Activation] | None) -> tuple[Activation, ...]:
    """Those of the hidden layers, and the linear output layer's."""
    return (*(activations or ()), None)


def odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("allowed: an odd number, so that a window is centred on its bin")
    return value


@section
@dataclass(frozen=True)
class EncoderOptions:
    """Sizes of the encoders; the transformer's names are the published ones.

    ``embedding_layers``: perceptron of each region's neurons at the entrance, whose last layer is its output; without
    ``embedding_activations`` that one is linear, those before it relu. ``channels``, ``kernel_size`` and ``dilations``
    are of the convolution, which reaches ``kernel_size // 2 * sum(dilations)`` bins to each side; the rest is of the
    transformer. ``positional``: ``sinusoidal``, or ``none`` for the published transformer, which cannot tell the order
    of bins.
    """

    embedding_layers: Layers = (16,)
    embedding_activations: tuple[Activation, ...] | None = None
    channels: Count = 32
    kernel_size: Annotated[Count, AfterValidator(odd)] = 3
    dilations: Layers = (1, 2, 4, 8)
    head_size: Count = 35
    num_heads: Count = 3
    ff_dim: Count = 4
    num_transformer_blocks: Count = 1
    mlp_units: Layers = (32,)
    positional: Literal["sinusoidal", "none"] = "sinusoidal"

    def __post_init__(self) -> None:
        if not self.embedding_layers:
            raise ValueError("embedding_layers: found none; allowed: at least 1 entries")
        given = self.embedding_activations
        if given is None:
            relu: Activation = "relu"
            given = with_output([relu] * (len(self.embedding_layers) - 1))
        object.__setattr__(
            self, "embedding_activations", hidden_activations("embedding_activations", self.embedding_layers, given)
        )
