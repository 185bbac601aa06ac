"""R2 of forecasts 1, 5 and 10 bins ahead in the test trials, of a run and of one with linear networks, with intervals:

python docs/forecasts.py [--trial-seed I] results/toy-config results/toy-linear [MORE PAIRS]

The second is fitted with `--set model.xtransition.dynamics.layers=[] --set model.xtransition.dynamics.activations=[]`.
With `--trial-seed`, which the oscillators and the three networks know, the trials are new ones of the same simulation,
as many as it has in all, so that small differences can be told from chance.
"""

import argparse

import numpy as np
from jax import random

from mrsds_ppl import Fit, load
from mrsds_ppl.analysis.forecast import Forecast, forecast
from mrsds_ppl.data.simulate import SIMULATORS
from mrsds_ppl.data.trials import Trials

_HORIZONS, _DRAWS = (1, 5, 10), 200


def squared_errors(found: Forecast, test: Trials, horizon: int) -> np.ndarray:
    """Squared error of each trial, summed over cuts and neurons."""
    errors = np.zeros(test.num_trials)
    for cut, ahead in zip(found.cuts, found.y_mean, strict=True):
        bin = cut + horizon
        seen = test.observed[:, min(bin, test.num_bins - 1)] & (bin < test.lengths)[:, None]
        wrong = np.where(seen, test.y[:, min(bin, test.num_bins - 1)] - ahead[:, horizon - 1], 0.0)
        errors += (wrong**2).sum(1)
    return errors


def trials_of(run: Fit, trial_seed: int | None) -> Trials:
    """The test trials, or new ones of the same simulation."""
    if trial_seed is None:
        return run.split.test
    data = run.config.data
    simulate = SIMULATORS[data.data_source]
    return simulate(run.config.training.seeds.data, **{**data.simulation, "trial_seed": trial_seed})


def main(names: list[str], trial_seed: int | None) -> None:
    """Prints a line for each horizon of each pair of runs."""
    for ours, linear in zip(names[::2], names[1::2], strict=True):
        runs = [load(name) for name in (ours, linear)]
        test = trials_of(runs[0], trial_seed)
        found = [forecast(random.key(0), run.program, test, max(_HORIZONS), _DRAWS) for run in runs]
        print(f"{ours} and {linear}, {test.num_trials} trials, forecasts from bins {found[0].cuts.tolist()}")
        for horizon in _HORIZONS:
            r2 = [one.r2[horizon - 1] for one in found]
            first, second = (squared_errors(one, test, horizon) for one in found)
            gain = (second - first) / second.mean()
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            print(
                f"  {horizon:2d} bins ahead: R2 {r2[0]:.4f}, linear {r2[1]:.4f}; "
                f"squared error smaller by {100 * gain.mean():.2f}% (standard error {100 * error:.2f}%)",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--trial-seed", type=int)
    given = parser.parse_args()
    main(given.runs, given.trial_seed)
