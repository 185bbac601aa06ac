"""What fits of simulations recover, read off their test trials: latents, states, messages, flow and fixed points:

python docs/recovery.py results/double-well results/toy-config ...
"""

import inspect
import sys
from typing import NamedTuple

import numpy as np
from jax import random

from mrsds_ppl import Fit, load
from mrsds_ppl.analysis.communication import path_messages
from mrsds_ppl.analysis.flow import fixed_points
from mrsds_ppl.analysis.posterior_paths import PosteriorPaths, posterior_paths
from mrsds_ppl.analysis.recovery.alignment import LatentAlignment, align_latents, match_states
from mrsds_ppl.analysis.recovery.flow_scores import change_in_true_latents, field_cosine
from mrsds_ppl.analysis.recovery.message_scores import message_scores
from mrsds_ppl.data.simulate.double_well import LEFT
from mrsds_ppl.data.simulate.lotka_volterra import euler, simulate_lotka_volterra

_POINTS, _STARTS, _DRAWS = 400, 60, 20
_WELLS = (-1.0, 0.0, 1.0)


class Recovered(NamedTuple):
    """A run, posterior paths of its test trials, and how they map to the truth; ``state_of[j]`` is true state j."""

    run: Fit
    paths: PosteriorPaths
    aligned: LatentAlignment
    accuracy: float
    state_of: np.ndarray


def read(name: str) -> Recovered:
    """The run, with posterior paths aligned to the true ones."""
    run = load(name)
    test, sizes = run.split.test, list(run.model.latent_sizes)
    paths = posterior_paths(random.key(0), run.program, test, draws=_DRAWS)
    true_sizes = [test.x.shape[2] // len(sizes)] * len(sizes)
    aligned = align_latents(test.x, paths.x.mean(0), test.lengths, sizes, true_sizes)
    match = match_states(test.z, paths.z_prob.mean(0), test.lengths)
    return Recovered(run, paths, aligned, match.accuracy, np.argsort(match.true_state_of))


def show_messages(fit: Recovered) -> None:
    """Messages against the true ones, which the simulation returns."""
    test = fit.run.split.test
    told = path_messages(fit.run.program, test, fit.paths)
    scores = message_scores(test.messages, told, fit.aligned, test.z)
    print(
        f"  messages: cosine of each state {np.round(scores.cosine, 3)}, R2 between regions {scores.r2_cross:.3f}, "
        f"local {scores.r2_local:.3f}, absent over present {scores.absent_ratio:.3f}"
    )


def show_flow(fit: Recovered) -> None:
    """Change in one bin at visited points of each regime, against Euler steps of the true equations."""
    given = fit.run.config.data.simulation
    defaults = {n: p.default for n, p in inspect.signature(simulate_lotka_volterra).parameters.items()}
    steps, step = (given.get(name, defaults[name]) for name in ("steps_per_bin", "step"))
    test = fit.run.split.test
    for state in range(fit.run.model.num_states):
        here = test.x[test.z == state]
        points = here[:: max(len(here) // _POINTS, 1)]
        regime = np.full((1, 2), state)
        true = np.stack([euler(regime, point, steps, step)[0, 1] for point in points]) - points
        found = change_in_true_latents(fit.run.program, fit.aligned, points, state=int(fit.state_of[state]))
        cosine = field_cosine(true, found)
        print(f"  flow of state {state}: cosine pooled {cosine.pooled:.4f}, mean over points {cosine.mean:.4f}")


def show_wells(fit: Recovered) -> None:
    """Fixed points of the accumulator while it gathers evidence, the controller at rest on the left."""
    (a, c), (a_zero, c_zero) = fit.aligned.weights, fit.aligned.offsets
    resting = (np.array([LEFT, 0.0]) - c_zero) @ np.linalg.inv(c)
    across = np.stack([np.linspace(-1.3, 1.3, _STARTS), np.zeros(_STARTS)], axis=1)
    found = fixed_points(
        fit.run.program,
        state=int(fit.state_of[0]),
        starts=(across - a_zero) @ np.linalg.inv(a),
        region=0,
        at={1: resting},
    )
    for point in sorted(found, key=lambda p: float((p.x @ a + a_zero)[0])):
        kind = "stable" if point.stable else "unstable"
        place = point.x @ a + a_zero
        nearest = min(_WELLS, key=lambda well: abs(well - place[0]))
        print(f"  fixed point at {np.round(place, 3)}, {kind}, {abs(place[0] - nearest):.3f} from {nearest:g}")


def main(names: list[str]) -> None:
    """Prints what each run recovered."""
    for name in names:
        fit = read(name)
        r2 = fit.aligned.r2
        print(
            f"{name}: R2 mean {np.nanmean(r2):.3f}, smallest {np.nanmin(r2):.3f}, states {fit.accuracy:.4f}", flush=True
        )
        if fit.run.split.test.messages is not None:
            show_messages(fit)
        if fit.run.config.data.data_source == "lotka-volterra":
            show_flow(fit)
        if fit.run.config.data.data_source == "double-well":
            show_wells(fit)


if __name__ == "__main__":
    main(sys.argv[1:])
