"""The scores of a run: reconstruction, one bin ahead, co-smoothing, bounds, and recovery where the truth is known."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from mrsds_ppl.analysis.metrics import Scores, evaluate, noise_ceiling
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.emissions.sessions import SomeEmissions
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.start.unused import share_of_bins, unused_sentence
from mrsds_ppl.train.history import History

_FEWEST_STEPS = 20  # two in each tenth


class Evaluation(NamedTuple):
    """Scores by split; ``cosmooth`` is of test trials' neurons hidden from the encoder. ``*_ahead``: one bin ahead.

    ``ceilings``: R^2 that the noise of the fitted emissions leaves in train, test and cosmooth.
    """

    train: Scores
    test: Scores
    cosmooth: Scores
    train_ahead: Scores
    test_ahead: Scores
    cosmooth_ahead: Scores
    elbo_test: float
    bound_test: float
    ceilings: tuple[float, float, float]

    def arrays(self) -> dict[str, list[float]]:
        """The published keys; R^2 in the published convention stays under the log's ``published``."""
        pairs = {
            "train": self.train,
            "test": self.test,
            "cosmooth": self.cosmooth,
            "train_gen1": self.train_ahead,
            "test_gen1": self.test_ahead,
            "cosmooth_gen1": self.cosmooth_ahead,
        }
        found = {f"{name}_mses": [scores.mse] for name, scores in pairs.items()}
        found |= {f"{name}_r2s": [scores.r2] for name, scores in pairs.items()}
        if self.cosmooth.bits_per_spike is not None:
            found["cosmooth_bps"] = [self.cosmooth.bits_per_spike]
        return found

    def lines(self) -> list[str]:
        """What the user reads at the end."""
        named = (("train", self.train, self.train_ahead), ("test", self.test, self.test_ahead))
        every = (*named, ("co-smoothing", self.cosmooth, self.cosmooth_ahead))
        lines = [
            f"{name}: R2 {scores.r2:.4f} (published convention {scores.r2_published:.4f}), MSE {scores.mse:.4g}; "
            f"one bin ahead R2 {ahead.r2:.4f}; noise ceiling {ceiling:.4f}"
            for (name, scores, ahead), ceiling in zip(every, self.ceilings, strict=True)
        ]
        lines.append(
            "R2: share of a neuron's variance that is explained, mean over neurons. noise ceiling: that of the true "
            "mean, by the noise that the fit finds; only what has seen the values themselves passes it"
        )
        if self.cosmooth.bits_per_spike is not None:
            lines.append(
                f"co-smoothing: {self.cosmooth.bits_per_spike:.4f} bits per spike, more than the mean rates of the "
                "neurons give"
            )
        lines.append(
            f"test trials: bound {self.elbo_test:.2f}, importance-weighted {self.bound_test:.2f} nats a trial, both "
            "below log p(y); `mrsds compare` compares fits"
        )
        return lines


def noise_variance(
    emissions: SomeEmissions, trials: Trials, estimate: Float[np.ndarray, "trial time neuron"]
) -> Float[np.ndarray, "trial time neuron"]:
    """Variance of signals around expected ones: the inverse information, less in a law of no exponential family."""
    own = emissions.of_trials(trials.session_numbers)
    return 1.0 / np.asarray(own.information(jnp.asarray(estimate)), np.float64)


def evaluate_run(
    key: PRNGKeyArray,
    sampler: PosteriorSampler,
    split: Split,
    train: PosteriorSet,
    test: PosteriorSet,
    hidden: Int[np.ndarray, " hidden"],
) -> Evaluation:
    """Scores of a fit.

    Args:
        key: random key.
        sampler: of the fitted program and guide; their emissions say how signals are scored.
        split: the trials.
        train, test: their posteriors, as the sampler gives them.
        hidden: neurons hidden for co-smoothing.
    """
    smoothed = sampler.reconstruct(key, split.test, hidden_neurons=hidden)
    emissions = sampler.fitted.networks.emissions
    counts = emissions.counts

    def scores(trials: Trials, estimate: np.ndarray | None, neurons: np.ndarray | None = None) -> Scores:
        assert estimate is not None, "a posterior that was read from a file, which holds no prediction one bin ahead"
        return evaluate(trials.y, trials.observed, estimate, counts, neurons, sessions=trials.sessions)

    def ceiling(trials: Trials, estimate: np.ndarray, neurons: np.ndarray | None = None) -> float:
        variance = noise_variance(emissions, trials, estimate)
        return noise_ceiling(trials.y, trials.observed, variance, neurons, sessions=trials.sessions)

    some = hidden if len(hidden) else None
    return Evaluation(
        train=scores(split.train, train.y_mean),
        test=scores(split.test, test.y_mean),
        cosmooth=scores(split.test, smoothed.y_mean, some),
        train_ahead=scores(split.train, train.y_next),
        test_ahead=scores(split.test, test.y_next),
        cosmooth_ahead=scores(split.test, smoothed.y_next, some),
        elbo_test=float(test.elbo.mean()),
        bound_test=float(test.log_likelihood.mean()),
        ceilings=(
            ceiling(split.train, train.y_mean),
            ceiling(split.test, test.y_mean),
            ceiling(split.test, smoothed.y_mean, some),
        ),
    )


def recovery_lines(split: Split, test: PosteriorSet, model: MRSDS) -> list[str]:
    """Latents and states against the truth of a simulation; nothing for a recording."""
    lines, trials = [], split.test
    if trials.x is not None:
        widths = trials.x.shape[2]
        pooled = len(model.latent_sizes) == 1
        same = widths == sum(model.latent_sizes)
        regions = [widths] if pooled else (list(model.latent_sizes) if same else None)
        if regions is not None:
            sizes = [sum(model.latent_sizes)] if pooled else list(model.latent_sizes)
            found = align_latents(trials.x, test.x_mean, trials.lengths, sizes, regions)
            lines.append("true latents: R2 " + " ".join(f"{value:.4f}" for value in found.r2) + " (test trials)")
    if trials.z is not None and trials.z.max() < model.num_states:
        match = match_states(trials.z, test.z_prob, trials.lengths)
        lines.append(f"true states: accuracy {match.accuracy:.4f} (test trials)")
    return lines


def remarks(train: PosteriorSet, test: PosteriorSet, history: History) -> list[str]:
    """What a user should know of a fit beside its scores: states or smoothed paths that failed, a bound that fell.

    Args:
        train, test: posteriors.
        history: of training.
    """
    elbo = np.asarray(history.metrics["elbo"])
    shares = jax.device_get(share_of_bins(train.z_prob, train.lengths))
    found = given_draws_sentence(train, test), unused_sentence(shares, revived=False), fallen_sentence(elbo)
    return [sentence for sentence in found if sentence is not None]


def given_draws_sentence(*sets: PosteriorSet) -> str | None:
    """Says in how many trials states are given draws of the guide; None where there are no such trials."""
    count = sum(0 if some.given_draws is None else int(some.given_draws.sum()) for some in sets)
    if count == 0:
        return None
    return f"note: in {count} trials smoothed paths are not finite: latents are the guide's, states given these"


class Fall(NamedTuple):
    """The bound in the tenth of the steps where it was best, and in the last, nats per observed value."""

    best: float
    last: float


def fall_of_bound(elbo: Float[np.ndarray, " step"]) -> Fall | None:
    """How far the bound of training ended below what it once was; None where it did not, or of too few steps.

    A fall is more than three standard deviations of the single steps of the best tenth, which differ by their batches
    and draws alone, and more than 1% of the bound where steps hardly differ.

    Args:
        elbo: of each step, in nats per observed value.
    """
    values = elbo[np.isfinite(elbo)]
    if len(values) < _FEWEST_STEPS:
        return None
    *before, last = np.array_split(values.astype(float), 10)
    best = max(before, key=np.mean)
    fell = best.mean() - last.mean() > max(3 * best.std(), 0.01 * abs(best.mean()))
    return Fall(float(best.mean()), float(last.mean())) if fell else None


def fallen_sentence(elbo: Float[np.ndarray, " step"]) -> str | None:
    """Says that the bound fell in training; None where it did not. Arguments as of :func:`fall_of_bound`."""
    fall = fall_of_bound(elbo)
    if fall is None:
        return None
    return (
        f"warning: the bound fell in training, from {fall.best:.4g} to {fall.last:.4g} nats per observed value: steps "
        "were too large for this program; lower training.learning_rate, such as to a fifth"
    )


def not_finite_sentence(scores: Mapping[str, Sequence[float]], **sets: PosteriorSet) -> str | None:
    """Says which scores of a fit are not finite; None where all are.

    Scores without a value to score are NaN, R^2 of neurons that do not vary among them, which is no fault of the fit.

    Args:
        scores: of :meth:`Evaluation.arrays`.
        sets: posteriors by the name of their trials.
    """
    found = [name for name, values in scores.items() if np.isinf(values).any()]
    for name, some in sets.items():
        wrong = ~np.isfinite(np.stack([some.elbo, some.log_likelihood])).all(0)
        if wrong.any():
            found.append(f"bounds of {wrong.sum()} of {len(wrong)} {name} trials")
    if not found:
        return None
    return (
        f"scores are not finite ({', '.join(found)}), so that this fit is no result. Bring signals and inputs to a "
        "size near 1, use softplus in place of exp, or lower training.learning_rate"
    )
