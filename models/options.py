"""Form of the model as plain options: what enters what, and its four parts.

No JAX here: the section ``model`` of a configuration is :class:`ModelOptions` with its sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator

from mrsds_ppl.errors import ConfigError
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

    communication_type: Literal["additive", "additive-shared", "additive-linear", "conditional"] = "additive"
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


def _names(value: object) -> object:
    given = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    if not given or not all(isinstance(name, str) for name in given):
        raise ValueError("allowed: a name, a list with one for each region, or a mapping from region to name")
    return value


@section
@dataclass(frozen=True)
class EmissionOptions:
    """p(y_t | x_t) of each region.

    ``dist``: the law of all regions, or one of each, in their order or by their names. ``final_activation`` None is the
    law's own; counts need a positive rate.
    """

    dist: Annotated[str | tuple[str, ...] | dict[str, str], BeforeValidator(_names)] = "gaussian"
    layers: Layers = ()
    activations: tuple[Activation, ...] | None = None
    final_activation: Literal["exp", "softplus", None] = None
    triangular_cov: bool = False
    trainable_cov: bool = True

    def __post_init__(self) -> None:
        _match(self, "layers", "activations")

    @property
    def laws(self) -> tuple[str, ...]:
        """Names of the laws, each once."""
        given = self.dist.values() if isinstance(self.dist, dict) else self.dist
        return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))

    @property
    def phrase(self) -> str:
        """The laws in words."""
        if isinstance(self.dist, dict):
            return ", ".join(f"{region} {law}" for region, law in self.dist.items())
        return self.dist if isinstance(self.dist, str) else ", ".join(self.dist)

    def of_regions(self, names: Sequence[str]) -> tuple[str, ...]:
        """Name of each region's law.

        Args:
            names: of the regions.

        Raises:
            ConfigError: laws of other regions, or of another number of regions.
        """
        regions = ", ".join(names)
        if isinstance(self.dist, dict):
            if set(self.dist) != set(names):
                found = ", ".join(self.dist)
                raise ConfigError(f"model.emissions.dist: found laws of {found}; allowed: a law for each of {regions}")
            return tuple(self.dist[name] for name in names)
        given = (self.dist,) * len(names) if isinstance(self.dist, str) else self.dist
        if len(given) != len(names):
            raise ConfigError(
                f"model.emissions.dist: found {len(given)} laws; allowed: one name, or one for each of {regions}"
            )
        return given


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
