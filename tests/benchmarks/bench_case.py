"""The case that the benchmarks share, at full size or small enough for the ordinary test run."""

import os
from typing import NamedTuple

import jax
import numpy as np

from mrsds_ppl.build import initial_parameters
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.guides import GUIDES, GaussianMarkovPaths
from mrsds_ppl.models import MRSDS, EmissionOptions, ModelOptions
from mrsds_ppl.train.history import stack
from mrsds_ppl.train.objective import make_objective
from mrsds_ppl.train.training import TrainingSettings, initial_state, make_run_chunk

FULL = os.environ.get("MRSDS_BENCH", "tiny") == "full"


MEAN_COUNT = 0.6


class Sizes(NamedTuple):
    """``trials`` is the size of a batch; the training set has three batches. Signals are spike counts or Gaussian."""

    trials: int = 64
    bins: int = 150
    neurons: int = 100
    regions: int = 2
    latents: int = 1  # of each region
    states: int = 2
    steps: int = 25  # in one call of the compiled loop
    counts: bool = False


SIZES = Sizes() if FULL else Sizes(trials=4, bins=8, neurons=6, steps=2)


class Step(NamedTuple):
    """The compiled loop of `sizes.steps` steps and what it is called with: ``run_chunk(state, data)``."""

    run_chunk: object
    state: object
    data: Batch


def make_batch(sizes, num_trials):
    """Signals of unit variance, or counts, without inputs, every bin observed."""
    rng, of_trial = np.random.default_rng(0), (sizes.bins, sizes.neurons)
    y = np.empty((num_trials, *of_trial), np.float32)
    # One by one, so that no copy in double precision is the most that the process ever holds.
    for trial in y:
        trial[:] = rng.poisson(MEAN_COUNT, of_trial) if sizes.counts else rng.normal(size=of_trial)
    nothing = np.zeros((num_trials, sizes.bins, 0), np.float32)
    seen = np.ones(y.shape, bool)
    lengths, number = np.full(num_trials, sizes.bins, np.int32), np.arange(num_trials, dtype=np.int32)
    return Batch(y, nothing, seen, seen, lengths, nothing, number)


def make_model(sizes, num_trials=None, options=None):
    """The program with the default networks, or those of some options."""
    if sizes.counts and options is None:
        options = ModelOptions(emissions=EmissionOptions(dist="poisson"))
    region_sizes = [sizes.neurons // sizes.regions] * sizes.regions
    return MRSDS(
        region_sizes, sizes.latents, sizes.states, num_trials=num_trials, key=jax.random.key(0), options=options
    )


def make_step(guide_name, encoder, sizes, options=None):
    """A training step as `mrsds fit` compiles it, at its start. `structured` gets a program with its one state.

    The encoder `none` is a posterior of each trial, which the default guide has alone.
    """
    objective, settings, params, data = _parts(guide_name, encoder, sizes, options)
    return Step(make_run_chunk(objective, settings), initial_state(params, jax.random.key(3), settings), data)


def make_restarts(guide_name, encoder, sizes, number):
    """The same step of several restarts side by side."""
    objective, settings, params, data = _parts(guide_name, encoder, sizes)
    keys = jax.random.split(jax.random.key(3), number)
    state = initial_state(stack([params] * number), keys, settings, stacked=True)
    return Step(make_run_chunk(objective, settings, stacked=True), state, data)


def _parts(guide_name, encoder, sizes, options=None):
    if guide_name == "structured":
        sizes = sizes._replace(states=1)
    data = jax.device_put(make_batch(sizes, 3 * sizes.trials))
    model = make_model(sizes, num_trials=3 * sizes.trials, options=options)
    if encoder == "none":
        assert guide_name == "gaussian_markov"
        guide = GaussianMarkovPaths(model)
    else:
        guide = GUIDES[guide_name](model, encoder=encoder, key=jax.random.key(1))
    settings = TrainingSettings(
        # The last step is out of reach, so that every call runs a whole chunk.
        num_steps=10**6,
        batch_size=sizes.trials,
        learning_rate=1e-3,
        lr_warmup_steps=100,
        chunk_steps=sizes.steps,
    )
    params = initial_parameters(jax.random.key(2), model, guide, data).params
    return make_objective(model, guide, float(data.observed.sum())), settings, params, data
