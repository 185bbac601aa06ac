"""A recording and a posterior of it, made up, for tests of what is written to files."""

import numpy as np

from mrsds_ppl.analysis.posterior import PosteriorSet
from mrsds_ppl.data.trials import Trials


def two_region_trials(num_trials: int = 7, num_bins: int = 12, seed: int = 0, num_inputs: int = 1) -> Trials:
    """Counts of 3 + 2 neurons with the truth of a simulation; trials 1 and 4 are shorter, and one value is NaN."""
    rng = np.random.default_rng(seed)
    lengths = np.full(num_trials, num_bins)
    lengths[[1, 4]] -= [5, 2]
    ys = [rng.poisson(1.0, size=(n, 5)).astype(np.float32) for n in lengths]
    ys[0][3, 2] = np.nan
    return Trials.from_arrays(
        ys,
        [rng.normal(size=(n, num_inputs)).astype(np.float32) for n in lengths],
        region_sizes=[3, 2],
        region_names=["V1", "V2"],
        neurons=[11, 12, 15, 3, 4],
        input_names=[f"cue {i}" for i in range(num_inputs)],
        bin_width=0.02,
        x=[rng.normal(size=(n, 3)).astype(np.float32) for n in lengths],
        z=[rng.integers(0, 2, size=n) for n in lengths],
    )


def posterior_of(trials: Trials, draws: int = 10, counts: bool = True, seed: int = 0) -> PosteriorSet:
    """Random numbers in the shapes of a posterior with 2 + 1 latents and 2 states; nothing in padded bins is NaN."""
    rng = np.random.default_rng(seed)
    num_trials, num_bins, num_neurons = trials.y.shape
    grid = (num_trials, num_bins)
    first_state = rng.random((draws, *grid))
    z_prob_draws = np.stack([first_state, 1 - first_state], axis=-1).astype(np.float32)
    x_draws = rng.normal(size=(draws, *grid, 3)).astype(np.float32)
    messages = rng.normal(size=(*grid, 2, 2 + trials.u.shape[2], 2)).astype(np.float32)
    rate = rng.random((*grid, num_neurons)).astype(np.float32)
    y_draws = rng.poisson(1.0, (draws, *rate.shape)).astype(np.int32)
    log_weights = rng.normal(-50.0, 0.3, size=(draws, num_trials)).astype(np.float32)
    marginal = np.log(np.mean(np.exp(log_weights), axis=0))
    return PosteriorSet(
        trial_ids=np.asarray(trials.ids),
        lengths=np.asarray(trials.lengths),
        x_mean=x_draws.mean(axis=0),
        x_draws=x_draws,
        z_prob=z_prob_draws.mean(axis=0),
        z_prob_draws=z_prob_draws,
        z_logprob=np.log(z_prob_draws.mean(axis=0)),
        y_mean=rate,
        y_next=rate + np.float32(0.1),
        messages=messages,
        norms=np.linalg.norm(messages, axis=-1),
        log_likelihood=marginal,
        elbo=marginal - np.float32(0.1),
        pareto_k=rng.random(num_trials).astype(np.float32),
        y_draws=y_draws if counts else y_draws + rng.normal(size=y_draws.shape).astype(np.float32),
        log_likelihood_draws=log_weights,
    )
