"""In a process with four host devices: what is computed on one of them, and spread over all; printed as JSON."""

import contextlib
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax import random
from jaxtyping import PyTree
from tiny_run import simulated

from mrsds_ppl import cli
from mrsds_ppl.backend.sharding import begun_on, on_devices, trial_mesh
from mrsds_ppl.backend.trials_at_once import in_parts, over_parts, over_rounds, put_together
from mrsds_ppl.build import initial_parameters, make_guide, make_model, make_settings
from mrsds_ppl.commands import fit as command
from mrsds_ppl.config.arguments import config_for
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.train.history import stack
from mrsds_ppl.train.objective import make_objective
from mrsds_ppl.train.training import RunChunk, TrainResult, TrainState, initial_state, make_run_chunk, train

# The devices divide neither.
TRIALS, BATCH = 26, 9


def trained(
    trials: Trials, config: RunConfig, devices: int, *, restarts: int = 1, stops: tuple[int, ...] = ()
) -> tuple[TrainState, TrainResult, RunChunk]:
    """The state before a few steps of joint training, and after them, with stops at some of them, and their loop."""
    with on_devices(devices):
        model = make_model(config, trials, trials.num_trials)
        guide = make_guide(config, model)
        batch = trials.batch()
        begun = initial_parameters(random.key(0), model, guide, batch)
        objective = make_objective(model, guide, float(trials.observed.sum()), 1, begun.constrain)
        settings = make_settings(config, trials)
        params, key = initialize(begun.params, trials, model.latent_sizes), random.key(1)
        stacked = restarts > 1
        if stacked:
            params, key = stack([params] * restarts), random.split(key, restarts)
        start = initial_state(params, key, settings, stacked=stacked)
        run_chunk = make_run_chunk(objective, settings, stacked=stacked)
        state = start
        for step in stops:
            state = train(objective, state, batch, settings, run_chunk=run_chunk, until=step).state
        return start, train(objective, state, batch, settings, run_chunk=run_chunk), run_chunk


def compared(trials: Trials, config: RunConfig, *, restarts: int = 1) -> dict[str, Any]:
    """Losses and sizes of their terms on one device and on four, and how far parameters went and are apart."""
    start, one, _ = trained(trials, config, 1, restarts=restarts)
    _, four, _ = trained(trials, config, 4, restarts=restarts)

    def vector(params: PyTree) -> np.ndarray:
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]).astype(float)

    terms = sum(np.abs(one.history.metrics[name]) for name in ("log_px", "log_py", "log_qx"))
    return {
        "one": one.history.loss.tolist(),
        "four": four.history.loss.tolist(),
        "magnitude": (terms / float(trials.observed.sum())).tolist(),
        "gap": float(np.linalg.norm(vector(one.params) - vector(four.params))),
        "way": float(np.linalg.norm(vector(one.params) - vector(start.params))),
        "devices_after": max(len(leaf.devices()) for leaf in jax.tree.leaves(four.state)),
    }


def gathered(run_chunk: RunChunk, start: TrainState, batch: Batch) -> list[str]:
    """Arrays of numbers that the compiled loop collects on each device, which then computes with all of them."""
    with on_devices(4):
        program = run_chunk.lower(*begun_on(start, batch)).compile().as_text()
    return re.findall(r"= (f32\[\S+) all-gather", program)


def placed(trials: Trials) -> dict[str, list[int]]:
    """Trials on each device, and bytes of each device and of all trials."""
    with on_devices(4):
        mesh = trial_mesh()
        assert mesh is not None
        found = mesh.place(trials.batch())
    shards = [[leaf.addressable_shards[number].data for leaf in jax.tree.leaves(found.rows)] for number in range(4)]
    return {
        "trials": [len(each[0]) for each in shards],
        "bytes": [sum(leaf.nbytes for leaf in each) for each in shards],
        "whole": [sum(leaf.nbytes for leaf in jax.tree.leaves(trials.batch()))],
    }


def through_trials(trials: Trials, devices: int) -> dict[str, list[float]]:
    """Numbers that go by draws of each call and sums over bins, of every trial, and where they were computed."""
    batch, asked = trials.batch(), []

    @jax.jit
    def drawn(key: jax.Array, y: jax.Array) -> jax.Array:
        return y.mean((1, 2)) + random.normal(key, y.shape[:1])

    def watched(key: jax.Array, y: jax.Array) -> jax.Array:
        asked.append(len(y.devices()) if isinstance(y, jax.Array) else 1)
        return drawn(key, y)

    with on_devices(devices):
        rounds = over_rounds(watched, random.key(0), batch.y, rounds=2)
        parts = in_parts(batch)
        sums = put_together(parts, over_parts(lambda some, x: some.y.sum((1, 2)) + x, parts, np.arange(float(TRIALS))))
    return {"rounds": rounds.tolist(), "sums": np.asarray(sums).tolist(), "devices": sorted(set(asked))}


def refused(config: Path, *options: str) -> dict[str, int | str]:
    """Exit status and error of a fit with some options."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = cli.main(["fit", str(config), *options])
    return {"status": status, "said": said.getvalue()}


def by_command(folder: Path) -> list[int]:
    """Devices over which ``mrsds fit`` spreads trials, as its options say."""
    seen: list[int] = []

    def spy(*_: object, **__: object) -> None:
        mesh = trial_mesh()
        seen.append(1 if mesh is None else len(mesh.devices))

    (folder / "any.yaml").write_text("training: {num_steps: 5}")
    with mock.patch.object(command, "fit", spy):
        for options in ([], ["--devices", "1"], ["--devices", "3"]):
            assert cli.main(["fit", str(folder / "any.yaml"), *options]) == 0
    return seen


def main(folder: Path, *, nightly: bool) -> None:
    trials = simulated(trials=TRIALS)
    config = config_for(
        2,
        1,
        model={"dynamics": {"layers": [4], "activations": ["tanh"]}},
        guide="gaussian_markov",
        start="none",
        training={"num_steps": 6, "log_steps": 3, "batch_size": BATCH, "learning_rate": 0.01, "lr_warmup_steps": 1},
        test=0.1,
        seed=0,
        emission="gaussian",
    )
    found: dict[str, Any] = {}
    if nightly:
        found["restarts"] = compared(trials, config, restarts=2)
        even = replace(config.training, optimiser=replace(config.training.optimiser, batch_size=8))
        start, _, run_chunk = trained(trials, config.model_copy(update={"training": even}), 4)
        found["gathered"] = gathered(run_chunk, start, trials.batch())
        (_, whole, _), (_, stopped, _) = (trained(trials, config, 4, stops=stops) for stops in ((), (3,)))
        pairs = zip(jax.tree.leaves(whole.params), jax.tree.leaves(stopped.params), strict=True)
        found["resumed"] = all(np.array_equal(left, right) for left, right in pairs)
    else:
        found["trained"] = compared(trials, config)
        found["placed"] = placed(trials)
        found["through"] = [through_trials(trials, devices) for devices in (1, 4)]
        found["by_command"] = by_command(folder)
        found["gpu"] = refused(folder / "any.yaml", "--gpu", "0", "--devices", "4")
        found["many"] = refused(folder / "any.yaml", "--devices", "5")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), nightly="nightly" in sys.argv[2:])
