"""The sizes of a fit that its cost depends on, from a configuration and its trials; no JAX."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.names import PATH_GUIDES
from mrsds_ppl.config.sections import InferenceConfig
from mrsds_ppl.data.split import Split
from mrsds_ppl.models.options import DynamicsOptions
from mrsds_ppl.start.ascent.polynomials import num_weights, why_no_polynomials
from mrsds_ppl.train.settings import START_STEPS, Regimen

_DIRECTIONS = 16  # of each message


class Products(NamedTuple):
    """Multiplications that a bin takes: of all messages, of the readout, and of the encoder; and units of messages."""

    messages: int
    readout: int
    encoder: int
    units: int


@dataclass(frozen=True)
class FitSizes:
    """What the cost of a fit grows with.

    Args:
        bins: of the longest trial, to which all are padded.
        train, test: trials.
        neurons, latents, states: numbers in all.
        widest: latents of the largest region.
        products: of a bin.
        batch: trials of a training step, of all restarts and particles.
        steps: of joint training at most, and of the dynamics alone.
        start: how the fit begins.
        start_steps: of a warm-up, or of a guide alone after smoothing.
        per_trial: whether every trial has a posterior of its own.
        draws: of the posterior of each test trial.
        train_draws: of each training trial.
        evidence_steps: of polynomials, 0 where networks are fitted in rounds.
        polynomial_weights: of these.
        scoring_rounds: after training.
        coefficients: of the messages, which a round of scoring solves for.
    """

    bins: int
    train: int
    test: int
    neurons: int
    latents: int
    states: int
    widest: int
    products: Products
    batch: int
    steps: int
    start: str
    start_steps: int
    per_trial: bool
    draws: int
    train_draws: int
    evidence_steps: int
    polynomial_weights: int
    scoring_rounds: int
    coefficients: int


def sizes_of(config: RunConfig, split: Split) -> FitSizes:
    """Sizes of a fit.

    Args:
        config: with the choice of the start in place of ``auto``.
        split: trials for training and test.
    """
    model, optimiser, start = config.model, config.training.optimiser, config.training.start
    regions, each = len(split.train.region_sizes), model.latent_sizes
    sizes = [each] * regions if isinstance(each, int) else list(each)
    if model.dynamics.single_region_latent:
        sizes = [sum(sizes)]
    latents, neurons, widest = sum(sizes), split.train.num_neurons, max(sizes)
    readout = _of_layers((widest, *model.emissions.layers)) * len(sizes) if model.emissions.layers else 0
    features = model.emissions.layers[-1] * len(sizes) if model.emissions.layers else widest * len(sizes)
    products = Products(
        messages=_of_messages(model.dynamics, len(sizes), widest, model.num_states),
        readout=readout + features * neurons,
        encoder=_of_encoder(config.inference, neurons, regions, latents),
        units=_units(model.dynamics, len(sizes), widest, model.num_states),
    )
    asked = start.steps or START_STEPS
    plain = config.training.regimen == Regimen() and model.dynamics.communication_type != "additive-shared"
    scored = plain and start.method == "smoothing" and config.inference.posterior_per_trial
    groups = 1 if model.dynamics.zcond else model.num_states
    inputs = split.train.num_inputs * model.ux
    ascends = start.method == "smoothing" and why_no_polynomials(model, sizes, inputs, model.num_states) is None
    batch, draws = min(optimiser.batch_size, split.train.num_trials), config.output.draws
    return FitSizes(
        bins=split.train.num_bins,
        train=split.train.num_trials,
        test=split.test.num_trials,
        neurons=neurons,
        latents=latents,
        states=model.num_states,
        widest=widest,
        products=products,
        batch=batch * optimiser.num_particles * optimiser.restarts,
        steps=optimiser.num_steps + (optimiser.num_steps_do if optimiser.dynamics_only else 0),
        start=start.method,
        start_steps=min(asked, optimiser.num_steps) if start.method == "staged" else asked,
        per_trial=config.inference.posterior_per_trial,
        draws=draws,
        train_draws=draws if config.output.trials == "all" else min(draws, 20),
        evidence_steps=start.evidence_steps if ascends else 0,
        polynomial_weights=num_weights(sizes, inputs, model.num_states),
        scoring_rounds=start.scoring_rounds if scored else 0,
        coefficients=_DIRECTIONS * groups * len(sizes) * (len(sizes) + inputs),
    )


def _of_layers(widths: tuple[int, ...]) -> int:
    return sum(a * b for a, b in pairwise(widths))


def _of_messages(options: DynamicsOptions, regions: int, width: int, states: int) -> int:
    """Products of all messages of all states, local ones too."""
    hidden, kind = options.layers, options.communication_type
    own = _of_layers((width, *hidden, width))
    if kind == "additive":
        return states * regions**2 * own
    if kind == "conditional":
        # With what the source says and with its silence.
        pairs = 2 * regions * (regions - 1) * _of_layers((2 * width, *hidden, width))
    elif kind == "additive-shared" and hidden:
        pairs = regions * _of_layers((width, *hidden)) + regions**2 * hidden[-1] * width
    else:
        pairs = regions**2 * width**2
    return states * (pairs + regions * own)


def _units(options: DynamicsOptions, regions: int, width: int, states: int) -> int:
    """Hidden units and outputs of all messages of all states."""
    kind, hidden = options.communication_type, sum(options.layers)
    each = {"conditional": 2 * hidden, "additive": hidden}.get(kind, 0)
    sent = regions * hidden if kind == "additive-shared" else 0
    return states * (regions**2 * (each + width) + sent + regions * hidden)


def _of_encoder(inference: InferenceConfig, neurons: int, regions: int, latents: int) -> int:
    """Products of encoder and head; none where the guide reads none."""
    if inference.encoder == "none" or inference.guide in PATH_GUIDES:
        return 0
    options, entered = inference.encoder_options, inference.encoder_options.embedding_layers[-1] * regions
    embedding = _of_layers((neurons, *(width * regions for width in options.embedding_layers)))
    if inference.encoder == "transformer":
        inner = options.num_heads * options.head_size
        blocks = options.num_transformer_blocks * entered * (4 * inner + 2 * options.ff_dim)
        body = blocks + _of_layers((entered, *options.mlp_units))
        features = options.mlp_units[-1]
    else:
        features = options.channels
        body = entered * features + len(options.dilations) * (options.kernel_size + 1) * features**2
    return embedding + body + features * latents * (latents + 2) + neurons * latents
