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

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.calibration import recovered
from mrsds_ppl.analysis.recovery.alignment import match_states
from mrsds_ppl.analysis.recovery.state_calibration import state_calibration

LINEAR = {"dynamics": {"layers": [], "activations": []}}
NOTHING = 1e-9


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
    return mrsds.fit(trials, 3, 2, start="smoothing", training={"num_steps": 300}, progress=False)


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
    present = edges["present"].values[:-1, :, :regions][:, between].reshape(-1)
    return {
        "system": system,
        "seed": seed,
        "latents": found.latents.tolist(),
        "messages": found.messages.tolist(),
        "states": list(map(float, states)),
        "found": int(present[true > NOTHING].sum()),
        "there": int((true > NOTHING).sum()),
        "false": int(present[true <= NOTHING].sum()),
        "absent": int((true <= NOTHING).sum()),
        "missed": np.round(true[(true > NOTHING) & ~present], 3).tolist(),
        "true": found.true.round(4).tolist(),
        "estimated": found.estimated.round(4).tolist(),
    }


def together(rows: list[dict]) -> Iterator[str]:
    for name in ("latents", "messages", "states"):
        yield f"{name}: mean {np.mean([row[name] for row in rows], 0).round(3)}"
    found, there, false = (sum(row[name] for row in rows) for name in ("found", "there", "false"))
    yield f"edges: {found} of {there} found, {false} of {found + false} claims false"


if __name__ == "__main__":
    chosen, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    lines = []
    for number in range(first, first + count):
        lines.append(measured(chosen, number))
        print(json.dumps(lines[-1]), flush=True)
    print(*together(lines), sep="\n")
