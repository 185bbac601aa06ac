"""Form of the model as plain options: what enters what, and its four parts.

No JAX here: the section ``model`` of a configuration is :class:`ModelOptions` with its sizes.
"""

from dataclasses import dataclass
from typing import Literal

from mrsds_ppl.nn.options import Activation, Layers, hidden_activations, section
from mrsds_ppl.quantities import Positive, Steps

__all__ = ["DynamicsOptions", "EmissionOptions", "InitialOptions", "ModelOptions", "TransitionOptions"]


def _match(options: object, layers: str, activations: str) -> None:
    found = hidden_activations(activations, getattr(options, layers), getattr(options, activations))
    object.__setattr__(options, activations, found)


@section
@dataclass(frozen=True)
class InitialOptions:
    """First bin, p(x_1 | z_1): form of its covariance, diagonal or full (``triangular_cov``), and whether it trains."""

    triangular_cov: bool = False
    trainable_cov: bool = True


@section
@dataclass(frozen=True)
class TransitionOptions:
    """p(z_t | z_{t-1}, x_{t-1}, u_t): ``layer_mult`` times K^2 hidden units before the softmax, 0 for none."""

    layer_mult: Steps = 0


@section
@dataclass(frozen=True)
class DynamicsOptions:
    """p(x_t | z_t, x_{t-1}, u_t): choices of section 3 of the paper.

    ``layers`` and ``activations`` are of the hidden layers of the messages between regions, ``input_layers`` and
    ``input_activations`` of those of the inputs; relu where activations are left out, and the None of the linear output
    may follow them. ``zcond``: one network that is given z, instead of one per state. ``single_region_latent``: one
    pooled latent instead of one for each region. ``noise_scale``: standard deviation of the state noise at the start.
    """

    communication_type: Literal["additive", "additive-linear", "conditional"] = "additive"
    input_type: Literal["additive", "conditional"] = "additive"
    input_func_type: Literal["separate", "together"] = "separate"
    single_region_latent: bool = False
    zcond: bool = False
    layers: Layers = (32, 32)
    activations: tuple[Activation, ...] | None = None
    input_layers: Layers = ()
    input_activations: tuple[Activation, ...] | None = None
    triangular_cov: bool = False
    trainable_cov: bool = True
    noise_scale: Positive = 0.3

    def __post_init__(self) -> None:
        _match(self, "layers", "activations")
        _match(self, "input_layers", "input_activations")


@section
@dataclass(frozen=True)
class EmissionOptions:
    """p(y_t | x_t) of each region. ``final_activation`` None is the emission's own; counts need a positive rate."""

    dist: str = "gaussian"
    layers: Layers = ()
    activations: tuple[Activation, ...] | None = None
    final_activation: Literal["exp", "softplus", None] = None
    triangular_cov: bool = False
    trainable_cov: bool = True

    def __post_init__(self) -> None:
        _match(self, "layers", "activations")


@section
@dataclass(frozen=True)
class ModelOptions:
    """Form of the model beside its sizes.

    ``ux``: inputs enter x; ``uz``, ``xz``, ``sz``: inputs, latents, stages enter z.
    ``weight_prior``: standard deviation of a normal prior on every network weight; None for no prior.
    """

    ux: bool = True
    uz: bool = False
    xz: bool = True
    sz: bool = False
    initial: InitialOptions = InitialOptions()
    transitions: TransitionOptions = TransitionOptions()
    dynamics: DynamicsOptions = DynamicsOptions()
    emissions: EmissionOptions = EmissionOptions()
    weight_prior: Positive | None = None
