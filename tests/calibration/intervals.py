"""How often intervals hold the truth, states are right, and edges are told apart, over simulations of three systems.

    python tests/calibration/intervals.py oscillators 0 20        # or linear, wells: seeds 0 to 19

Prints a line of JSON for each simulation, and at the end what they say together. Of a system, twenty take half an hour
on two cores.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np
from jax import random
from scipy.stats import mannwhitneyu

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.calibration import Recovered, recovered
from mrsds_ppl.analysis.recovery.alignment import match_states
from mrsds_ppl.analysis.recovery.state_calibration import state_calibration

LINEAR = {"dynamics": {"layers": [], "activations": []}}
# Those of configs/oscillators.yaml.
OSCILLATORS = {
    "num_steps": 100,
    "learning_rate": 3e-3,
    "lr_warmup_steps": 20,
    "start": "smoothing",
}
NOTHING = 1e-9
# Probability of keeping the state from bin to bin, of each simulation.
STAYS = {"oscillators": 0.95, "wells": 0.96}


def linear(seed: int) -> mrsds.Trials:
    """One state, three regions of two latents that turn and decay, three of six messages; Gaussian signals."""
    rng, sizes = np.random.default_rng(seed), (3, 2)
    maps = np.zeros((*sizes, *sizes))
    for region, angle in enumerate(rng.uniform(0.2, 1.2, 3)):
        maps[region, :, region] = 0.9 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for target, source in ((1, 0), (2, 1), (0, 2)):
        maps[target, :, source] = 0.15 * np.linalg.qr(rng.normal(size=(2, 2)))[0]
    loadings = rng.normal(size=(3, 15, 2)) / np.sqrt(2)
    own, parts = np.eye(3)[:, None, :, None] * np.eye(2)[None, :, None], []
    for _ in range(100):
        x = np.zeros((60, *sizes))
        for t in range(60):
            before = x[t - 1] if t else rng.normal(size=sizes)
            x[t] = np.einsum("ridj,dj->ri", maps, before) + 0.2 * rng.normal(size=sizes)
        y = np.einsum("rnd,trd->trn", loadings, x).reshape(60, -1)
        sent = np.zeros((60, 3, 3, 2))
        sent[1:] = np.einsum("risj,tsj->trsi", maps - own, x[:-1])
        parts.append((y + 0.4 * rng.normal(size=y.shape), x.reshape(60, -1), np.zeros(60, int), sent))
    ys, xs, zs, messages = zip(*parts, strict=True)
    return mrsds.Trials.from_arrays(ys, region_sizes=[15] * 3, bin_width=0.05, x=xs, z=zs, messages=messages)


def fitted(system: str, seed: int) -> mrsds.Fit:
    if system == "linear":
        return mrsds.fit(linear(seed), 1, 2, model=LINEAR, training={"num_steps": 300}, progress=False)
    if system == "wells":
        return mrsds.fit(mrsds.simulate("wells", seed=seed), 2, 2, progress=False)
    trials = mrsds.simulate("oscillators", seed=seed)
    return mrsds.fit(trials, 3, 2, model={"xz": False}, training=OSCILLATORS, progress=False)


def transitions_held(fit: mrsds.Fit, stay: float) -> list[int]:
    """How many probabilities of the chain 50% and 90% intervals hold; it goes from a state to any other alike."""
    count = fit.model.num_states
    if count == 1:
        return [0, 0, 0]
    true = np.where(np.eye(count, dtype=bool), stay, (1 - stay) / (count - 1))
    found = [fit.transitions(level=level) for level in (0.5, 0.9)]
    return [*(int(((one["low"] <= true) & (true <= one["high"])).sum()) for one in found), true.size]


def norms_held(found: Recovered, p_values: np.ndarray, names: np.ndarray) -> list[int]:
    """How many mean norms 50% and 90% intervals of draws hold; low is 0 where training trials ask for no message."""
    asked, between = np.empty_like(p_values), ~np.eye(p_values.shape[1], dtype=bool)
    asked[names] = p_values
    held = []
    for level, low, high in zip((0.5, 0.9), found.low, found.high, strict=True):
        low = np.where(asked > (1 - level) / 2, 0.0, low)
        held.append(int(((found.true >= low) & (found.true <= high))[:, between].sum()))
    return [*held, int(between.sum()) * len(p_values)]


def measured(system: str, seed: int) -> dict[str, object]:
    fit = fitted(system, seed)
    trials, test = fit.trials, fit.split.test
    found = recovered(random.key(seed), fit.program, test, fit.weights)
    states = state_calibration(trials.z, np.nan_to_num(fit.states.values), trials.lengths)
    names = match_states(trials.z, np.nan_to_num(fit.states.values), trials.lengths).true_state_of
    sizes = np.linalg.norm(np.nan_to_num(trials.messages), axis=-1)
    edges, regions = fit.edges(), len(trials.region_sizes)
    between = ~np.eye(regions, dtype=bool)
    true = np.stack([sizes[trials.z == state].mean(0)[between] for state in names]).reshape(-1)
    claimed, asked = (edges[name].values[:-1, :, :regions] for name in ("present", "p_value"))
    present, p_values = (some[:, between].reshape(-1) for some in (claimed, asked))
    return {
        "norms": norms_held(found, asked, names),
        "system": system,
        "seed": seed,
        "latents": found.latents.tolist(),
        "messages": found.messages.tolist(),
        "states": list(map(float, states)),
        "transitions": transitions_held(fit, STAYS.get(system, 1.0)),
        "found": int(present[true > NOTHING].sum()),
        "there": int((true > NOTHING).sum()),
        "false": int(present[true <= NOTHING].sum()),
        "absent": int((true <= NOTHING).sum()),
        "missed": np.round(true[(true > NOTHING) & ~present], 3).tolist(),
        "p_there": p_values[true > NOTHING].tolist(),
        "p_absent": p_values[true <= NOTHING].tolist(),
        "true": found.true.round(4).tolist(),
        "estimated": found.estimated.round(4).tolist(),
    }


def together(rows: list[dict]) -> Iterator[str]:
    for name in ("latents", "messages", "states"):
        each = np.array([row[name] for row in rows])
        yield f"{name}: mean {each.mean(0).round(3)}, spread {each.std(0).round(3)}"
    for name in ("transitions", "norms"):
        held = np.sum([row[name] for row in rows], 0)
        yield f"{name}: {held[0]} and {held[1]} of {held[2]} in their intervals"
    found, there, false = (sum(row[name] for row in rows) for name in ("found", "there", "false"))
    yield f"edges: {found} of {there} found, {false} of {found + false} claims false"
    p_there, p_absent = (np.concatenate([row[name] for row in rows]) for name in ("p_there", "p_absent"))
    right = 1 - mannwhitneyu(p_there, p_absent).statistic / (len(p_there) * len(p_absent))
    yield f"p-values: an edge that is there has the smaller one in {right:.3f} of pairs (area under the ROC)"
    for most in (0.01, 0.05, 0.1, 0.2):
        below = [float(np.mean(some < most)) for some in (p_there, p_absent)]
        yield f"p below {most}: {below[0]:.3f} of edges that are there, {below[1]:.3f} of others"


if __name__ == "__main__":
    chosen, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    lines = []
    for number in range(first, first + count):
        lines.append(measured(chosen, number))
        print(json.dumps(lines[-1]), flush=True)
    print(*together(lines), sep="\n")
