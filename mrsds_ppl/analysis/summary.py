"""The scores of a run: reconstruction, one bin ahead, co-smoothing, bounds, and recovery where the truth is known."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, PRNGKeyArray

from mrsds_ppl.analysis.metrics import Scores, evaluate
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.data.split import Split
from mrsds_ppl.models.mrsds import MRSDS


class Evaluation(NamedTuple):
    """Scores by split; ``cosmooth`` is of test trials' neurons hidden from the encoder. ``*_ahead``: one bin ahead."""

    train: Scores
    test: Scores
    cosmooth: Scores
    train_ahead: Scores
    test_ahead: Scores
    cosmooth_ahead: Scores
    elbo_test: float
    bound_test: float
    worst_pareto_k: float

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
        lines = [
            f"{name}: R2 {scores.r2:.4f} (published convention {scores.r2_published:.4f}), MSE {scores.mse:.4g}; "
            f"one bin ahead R2 {ahead.r2:.4f}"
            for name, scores, ahead in (*named, ("co-smoothing", self.cosmooth, self.cosmooth_ahead))
        ]
        if self.cosmooth.bits_per_spike is not None:
            lines.append(f"co-smoothing: {self.cosmooth.bits_per_spike:.4f} bits per spike")
        trust = "" if self.worst_pareto_k < 0.7 else " (above 0.7: read the importance-weighted bound as a bound only)"
        lines.append(
            f"test trials: bound {self.elbo_test:.2f}, importance-weighted {self.bound_test:.2f} nats a trial; "
            f"largest Pareto k {self.worst_pareto_k:.2f}{trust}"
        )
        return lines


def evaluate_run(
    key: PRNGKeyArray,
    params: dict[str, Any],
    sampler: PosteriorSampler,
    split: Split,
    train: PosteriorSet,
    test: PosteriorSet,
    hidden: Int[np.ndarray, " hidden"],
    counts: bool,
) -> Evaluation:
    """Scores of a fit.

    Args:
        key: random key.
        params: fitted parameters.
        sampler: of the fitted program and guide.
        split: the trials.
        train, test: their posteriors.
        hidden: neurons hidden for co-smoothing.
        counts: whether signals are spike counts.
    """
    smoothed = sampler.reconstruct(key, params, split.test, hidden_neurons=hidden)

    def scores(trials: Any, estimate: Any, neurons: Any = None) -> Scores:
        return evaluate(trials.y, trials.observed, estimate, counts, neurons)

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
        worst_pareto_k=float(np.max(test.pareto_k)),
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
