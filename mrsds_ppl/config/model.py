"""Sections ``model`` and ``inference`` of a run's YAML file as typed, frozen objects."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mrsds_ppl.config.names import GUIDE_NAMES, PATH_GUIDES, PUBLISHED_GUIDES, TRIALWISE_GUIDES, hint, is_own_guide
from mrsds_ppl.config.sections import Count, Float, Int, Section, Steps, whole_number

ActivationName = Literal["relu", "tanh", "gelu", "softplus", "elu", "sigmoid", None]


class NetworkConfig(Section):
    """A perceptron: widths of its hidden layers and their activations. The output layer is linear, its width follows.

    ``activations`` holds one entry per hidden layer; the file may write the output layer's null after them.
    """

    layers: tuple[Count, ...] = ()
    activations: tuple[ActivationName, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _match_activations(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        layers = values.get("layers", cls.model_fields["layers"].default)
        activations = values.get("activations")
        if activations is None and "layers" not in values:
            return values
        if not isinstance(layers, list | tuple) or not isinstance(activations, list | tuple | None):
            return values
        layers = list(layers)
        # The published files mark the output layer by a null here too.
        if layers and layers[-1] is None:
            layers.pop()
        if activations is None:
            activations = ["relu"] * len(layers)
        activations = [None if name == "null" else name for name in activations]
        if len(activations) == len(layers) + 1 and activations[-1] is None:
            activations.pop()
        if len(activations) != len(layers):
            raise ValueError(
                f".activations: found {len(activations)} entries for {len(layers)} layers; allowed: one for each of "
                "layers, and after them a null for the output layer"
            )
        return {**values, "layers": layers, "activations": activations}

    @property
    def activations_with_output(self) -> tuple[str | None, ...]:
        """One entry per layer, the linear output layer included."""
        return (*self.activations, None)


class InitialConfig(NetworkConfig):
    """First bin, p(x_1 | z_1): form of its covariance."""

    triangular_cov: bool = False
    trainable_cov: bool = True


class StateTransitionConfig(Section):
    """p(z_t | z_{t-1}, x_{t-1}, u_t): ``layer_mult`` times K hidden units before the softmax, 0 for none."""

    layer_mult: Steps = 0


class DynamicsConfig(NetworkConfig):
    """Networks of the messages between regions."""

    layers: tuple[Count, ...] = (32, 32)
    activations: tuple[ActivationName, ...] = ("relu", "relu")
    communication_type: Literal["additive", "additive-linear", "conditional"] = "additive"
    input_type: Literal["additive", "conditional"] = "additive"
    input_func_type: Literal["separate", "together"] = "separate"
    single_region_latent: bool = False

    @field_validator("input_func_type", mode="before")
    @classmethod
    def _published_spelling(cls, value: Any) -> Any:
        return "separate" if value == "seperate" else value


class TransitionConfig(Section):
    """p(x_t | z_t, x_{t-1}, u_t)."""

    zcond: bool = False
    triangular_cov: bool = False
    trainable_cov: bool = True
    no_us_input: bool = False
    dynamics: DynamicsConfig = DynamicsConfig()
    inputs: NetworkConfig = NetworkConfig()


class EmissionsConfig(NetworkConfig):
    """p(y_t | x_t) of each region. Counts need a positive rate: a Poisson emission without one gets ``softplus``."""

    dist: Literal["gaussian", "poisson"] = "gaussian"
    final_activation: Literal["exp", "softplus", None] = None
    triangular_cov: bool = False
    trainable_cov: bool = True

    @model_validator(mode="before")
    @classmethod
    def _positive_rate(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        final = values.get("final_activation")
        final = None if final == "null" else final
        if final is None and values.get("dist") == "poisson":
            final = "softplus"
        return {**values, "final_activation": final}


class WeightPrior(Section):
    """Normal prior of this standard deviation on every network weight."""

    scale: Annotated[Float, Field(gt=0)]


class ModelConfig(Section):
    """The generative program: sizes, what enters what, and its four parts."""

    num_states: Count = 2
    latent_dims: int | tuple[int, ...] = 1
    ux: bool = True
    uz: bool = False
    xz: bool = True
    sz: bool = False
    xic: InitialConfig = InitialConfig()
    ztransition: StateTransitionConfig = StateTransitionConfig()
    xtransition: TransitionConfig = TransitionConfig()
    emissions: EmissionsConfig = EmissionsConfig()
    weight_prior: WeightPrior | None = None

    @field_validator("latent_dims", mode="before")
    @classmethod
    def _one_or_each(cls, value: Any) -> Any:
        sizes = [whole_number(size) for size in (value if isinstance(value, list | tuple) else [value])]
        if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError("allowed: a whole number of at least 1, or a list with one for each region")
        return tuple(sizes) if isinstance(value, list | tuple) else sizes[0]

    @model_validator(mode="before")
    @classmethod
    def _without_inputs(cls, values: Any) -> Any:
        transition = values.get("xtransition") if isinstance(values, dict) else None
        if not isinstance(transition, dict) or transition.get("no_us_input") is not True:
            return values
        if values.get("ux"):
            raise ValueError(".ux: found true, but xtransition.no_us_input is true too; remove one of them")
        return {**values, "ux": False}


class EmbeddingConfig(NetworkConfig):
    """Perceptron of each region's neurons at the entrance of the encoder; its last layer is its output."""

    layers: Annotated[tuple[Count, ...], Field(min_length=1)] = (16,)
    activations: tuple[ActivationName, ...] = (None,)


class TransformerConfig(Section):
    """Sizes of the transformer encoder. ``positional: none`` cannot tell the order of bins, as published."""

    head_size: Count = 35
    num_heads: Count = 3
    ff_dim: Count = 4
    num_transformer_blocks: Count = 1
    mlp_units: tuple[Count, ...] = (32,)
    positional: Literal["sinusoidal", "none"] = "sinusoidal"

    @field_validator("positional", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return "none" if value is None else value


class ConvolutionConfig(Section):
    """Sizes of the convolution encoder: its reach is ``kernel_size // 2 * sum(dilations)`` bins to each side."""

    channels: Count = 32
    kernel_size: Count = 3
    dilations: tuple[Count, ...] = (1, 2, 4, 8)

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("allowed: an odd number, so that a window is centred on its bin")
        return value


class InitialEncoderConfig(NetworkConfig):
    """Published network for the posterior of the first bin. Ours needs none: the encoder sees that bin too."""

    xic_input_type: str = "hs"
    xic_input_len: Int = -1


class InferenceConfig(Section):
    """The guide and its encoder. Without ``encoder``, ``transformer: true`` chooses the transformer.

    ``guide`` is a name, a published name, or a class of one's own, ``path/to/file.py:ClassName``. ``psi_add``: the
    corrections of the structured guides enter after the dynamics networks, or (false) before them. ``encoder: none``
    gives every trial a posterior of its own, a chain with gaussian_markov, and starts by smoothing; the auto_ guides,
    which read no encoder, start so with it alone. It is what a run with spike counts and several states does where no
    encoder is named, see :func:`mrsds_ppl.plan.with_encoder`.
    """

    guide: str = GUIDE_NAMES[0]
    encoder: Literal["convolution", "transformer", "none"] = "convolution"
    transformer: bool | None = None
    embedding: EmbeddingConfig = EmbeddingConfig()
    transformer_params: TransformerConfig = TransformerConfig()
    convolution_params: ConvolutionConfig = ConvolutionConfig()
    triangular_cov: bool = False
    trainable_cov: bool = True
    covariance: Literal["shared", "per_bin"] = "shared"
    psi_add: bool = True
    num_samples: Count = 1
    xic_inf: InitialEncoderConfig = InitialEncoderConfig()

    @model_validator(mode="before")
    @classmethod
    def _choose_encoder(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("encoder") is not None:
            return values
        # Left out rather than filled in where nothing names one, so that a run can tell; see `plan.with_encoder`.
        named = {"encoder": "transformer"} if values.get("transformer") is True else {}
        return {name: value for name, value in values.items() if name != "encoder"} | named

    @property
    def names_encoder(self) -> bool:
        """Whether the file names an encoder, or sizes of one."""
        sizes = {"encoder", "embedding", "convolution_params", "transformer_params"}
        return bool(sizes & self.model_fields_set)

    @property
    def posterior_per_trial(self) -> bool:
        """Whether the file, or the plan of a run, asks for a posterior of each trial that is found by smoothing."""
        return self.guide in TRIALWISE_GUIDES and self.encoder == "none"

    @property
    def chain_per_trial(self) -> bool:
        """Whether every trial has a Gaussian chain of its own instead of an encoder's."""
        return self.guide == "gaussian_markov" and self.encoder == "none"

    @property
    def encoder_phrase(self) -> str:
        """The encoder, in words; guides with a posterior for each trial have none."""
        return "no encoder" if self.encoder == "none" or self.guide in PATH_GUIDES else f"{self.encoder} encoder"

    @model_validator(mode="after")
    def _needs_encoder(self) -> "InferenceConfig":
        if self.encoder == "none" and self.guide not in TRIALWISE_GUIDES:
            raise ValueError(
                f".encoder: found none with {self.guide}, which reads its posterior off an encoder; allowed: "
                f"convolution, transformer, or none with {', '.join(TRIALWISE_GUIDES)}"
            )
        return self

    @field_validator("guide")
    @classmethod
    def _known_guide(cls, name: str) -> str:
        guide = PUBLISHED_GUIDES.get(name, name)
        if guide not in GUIDE_NAMES and not is_own_guide(guide):
            published = [old for old, new in PUBLISHED_GUIDES.items() if new in GUIDE_NAMES]
            allowed = ", ".join((*GUIDE_NAMES, *published))
            allowed += ", or path/to/file.py:ClassName"
            raise ValueError(f"unknown guide; allowed: {allowed}" + hint(name, (*GUIDE_NAMES, *published)))
        return guide
