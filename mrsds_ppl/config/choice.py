"""What ``start: auto`` does: the one place where a fit is begun otherwise because of the recording or of the model."""

from dataclasses import replace
from typing import Literal, NamedTuple

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.names import PATH_GUIDES, TRIALWISE_GUIDES
from mrsds_ppl.config.sections import InferenceConfig
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models import EMISSIONS
from mrsds_ppl.nn.options import EncoderOptions

__all__ = ["StartChoice", "choose_start"]

# Without an encoder trials are fitted one by one, in a time that grows with their bins. Up to this many a start by
# smoothing takes a minute or two on two cores, with up to so many latents.
MOST_BINS_WITHOUT_ENCODER, LATENTS_OF_SO_MANY_BINS = 60_000, 16


class StartChoice(NamedTuple):
    """How a fit begins: method and encoder, what decided it, and notes on what was asked for and cannot be."""

    method: Literal["staged", "smoothing", "none"]
    encoder: Literal["convolution", "transformer", "none"]
    why: str
    reads_encoder: bool = True

    @property
    def line(self) -> str:
        """The choice and its reason, for the log."""
        begins = {
            "smoothing": "by smoothing (Laplace EM)",
            "staged": "in stages (warm-up, states of an AR-HMM, refit)",
            "none": "from principal components",
        }
        encoder = f"{self.encoder} encoder" if self.encoder != "none" and self.reads_encoder else "no encoder"
        return f"start: {begins[self.method]}, {encoder}: {self.why}"

    def applied_to(self, config: RunConfig) -> RunConfig:
        """The configuration with the choice in place of ``auto``."""
        training, inference = config.training, replace(config.inference, encoder=self.encoder)
        training = replace(training, start=replace(training.start, method=self.method))
        return config.model_copy(update={"training": training, "inference": inference})


def choose_start(config: RunConfig, trials: Trials) -> StartChoice:
    """How a fit begins, from what the configuration names and, where it says ``auto``, from model and recording.

    Spike counts with several states are fitted better without an encoder, from a start by smoothing: the posterior is
    narrower than what an encoder can read off the counts, and states are told apart by it (docs/results.md has the
    figures). So are Gaussian signals with one state: an encoder's fit has more state noise than there is, and messages
    that are smaller (docs/intervals.md). That is what ``auto`` does where nothing stands against it, and the reason
    names what does.

    Args:
        config: the configuration.
        trials: the training trials.
    """
    encoder, because = _encoder(config, trials)
    reads = config.inference.guide not in PATH_GUIDES
    method, why = _method(config, encoder)
    return StartChoice(method, encoder, f"{why}; {because}" if because else why, reads)


def _encoder(config: RunConfig, trials: Trials) -> tuple[Literal["convolution", "transformer", "none"], str]:
    inference = config.inference
    if inference.encoder != "auto":
        return inference.encoder, f"inference.encoder is {inference.encoder}"
    if inference.guide in PATH_GUIDES and config.training.start.method == "smoothing":
        return "none", f"{inference.guide} has a posterior of each trial"
    if inference.encoder_options != EncoderOptions():
        return "convolution", "inference.encoder_options gives an encoder's sizes"
    against = _against_none(config, trials)
    if against is None:
        better = "Gaussian signals with one state" if config.model.num_states == 1 else "counts with several states"
        return "none", (
            f"{better} are fitted better so; inference.encoder: convolution brings an encoder where the guide has one, "
            "which is faster where trials are many"
        )
    if inference.guide in PATH_GUIDES:
        return "convolution", f"not by smoothing, since {against}"
    return "convolution", f"with an encoder, since {against}"


def _against_none(config: RunConfig, trials: Trials) -> str | None:
    """What stands against a posterior of each trial, found by smoothing."""
    model, bins = config.model, int(trials.lengths.sum())
    sizes = model.latent_sizes
    latents = sizes * len(trials.region_sizes) if isinstance(sizes, int) else sum(sizes)
    laws, start, restarts = model.emissions.laws, config.training.start.method, config.training.optimiser.restarts
    counts, alone = all(EMISSIONS[law].counts for law in laws), model.num_states == 1
    gaussian = all(law == "gaussian" for law in laws)
    most = most_bins_without_encoder(latents)
    reasons = (
        (config.inference.guide not in TRIALWISE_GUIDES, f"{config.inference.guide} reads an encoder"),
        (
            not counts and not (gaussian and alone),
            f"emissions are {model.emissions.phrase} and {'no' if len(laws) == 1 else 'not all'} counts",
        ),
        (counts and alone, "there is one state (name inference.encoder to compare with more states)"),
        (model.weight_prior is not None, "weights have a prior"),
        (start in ("staged", "none"), f"training.start is {start}"),
        (restarts > 1, f"there are {restarts} restarts"),
        (
            bins > most,
            f"{bins:,} bins with {latents} latents are more than {most:,}, up to which it takes minutes "
            f"(inference.encoder: none brings it all the same, in about {bins / most:.1f} times as long)",
        ),
    )
    return next((why for stands, why in reasons if stands), None)


def most_bins_without_encoder(latents: int) -> int:
    """Bins up to which ``auto`` begins by smoothing: of more than 16 latents fewer, as a bin takes the cube of them."""
    return int(MOST_BINS_WITHOUT_ENCODER * min(1.0, (LATENTS_OF_SO_MANY_BINS / latents) ** 3))


def _method(config: RunConfig, encoder: str) -> tuple[Literal["staged", "smoothing", "none"], str]:
    asked, per_trial = config.training.start.method, _per_trial(config.inference, encoder)
    if asked == "none":
        return "none", "training.start is none"
    if config.model.weight_prior is not None:
        return "none", "weights with a prior have no other start"
    if asked == "smoothing":
        return "smoothing", "training.start is smoothing"
    if per_trial:
        return "smoothing", "every trial has a posterior of its own"
    if config.model.num_states == 1:
        return "none", "one state, so there are none to find"
    return "staged", "training.start is staged" if asked == "staged" else "an AR-HMM finds the states after a warm-up"


def _per_trial(inference: InferenceConfig, encoder: str) -> bool:
    return encoder == "none" and inference.guide in TRIALWISE_GUIDES
