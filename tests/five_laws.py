"""Five regions of two neurons, each with signals of another law."""

import numpy as np

from mrsds_ppl.data import Trials

LAWS = ("gaussian", "poisson", "negative_binomial", "bernoulli", "zero_inflated_gamma")


def five_regions(num_trials: int, num_bins: int, missing: float = 0.1) -> Trials:
    """Trials with missing values, driven by one slow latent of each region; the last one is shorter."""
    rng = np.random.default_rng(0)
    x = np.cumsum(0.4 * rng.normal(size=(num_trials, num_bins, 5)), axis=1)
    drive = np.repeat(x, 2, axis=-1) * rng.choice([-1.0, 1.0], 10)
    rate = np.exp(np.clip(0.5 * drive, -2.0, 2.0))
    zero = rng.random(rate.shape) < np.exp(-rate)
    signals = (
        drive + rng.normal(size=drive.shape),
        rng.poisson(rate),
        rng.negative_binomial(2.0, 2.0 / (2.0 + rate)),
        rng.random(rate.shape) < 1 / (1 + np.exp(-drive)),
        np.where(zero, 0.0, rng.gamma(2.0, 0.3 * rate)),
    )
    y = np.concatenate([some[..., 2 * i : 2 * i + 2] for i, some in enumerate(signals)], axis=-1)
    y[rng.random(y.shape) < missing] = np.nan
    last = [*y[:-1], y[-1, : num_bins - 2]]
    return Trials.from_arrays(last, region_sizes=[2] * 5, region_names=[f"R{i}" for i in range(5)])
