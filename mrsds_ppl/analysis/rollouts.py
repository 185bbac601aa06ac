"""Running a fitted model forward from given or inferred states.

All rollouts run the program's own transition, so that z and x are sampled as in the model; expectations over z are
averages over sampled paths.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro import handlers

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.recovery.alignment import valid_bins
from mrsds_ppl.backend.trials_at_once import over_trials
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.ppl.markov import Program, Switching, ancestral, potentials
from mrsds_ppl.statespace.chain import sample_path


class Start(NamedTuple):
    """State and latents of the first bin of each path."""

    z: Int[np.ndarray, " path"]
    x: Float[np.ndarray, "path latent"]


class Generated(NamedTuple):
    """Paths of the model: states (-1 in padding), latents and expected signals (NaN in padding)."""

    z: Int[np.ndarray, "path time"]
    x: Float[np.ndarray, "path time latent"]
    y_mean: Float[np.ndarray, "path time neuron"]


def generate(
    key: PRNGKeyArray,
    fitted: FittedProgram,
    inputs: Float[np.ndarray, "path time input"],
    lengths: Int[np.ndarray, " path"],
    *,
    start: Start | None = None,
    z: Int[np.ndarray, "path time"] | None = None,
    stages: Float[np.ndarray, "path time stage"] | None = None,
    sessions: Int[np.ndarray, " path"] | None = None,
) -> Generated:
    """Paths sampled from the model.

    Args:
        key: random key.
        fitted: program and parameters.
        inputs: u of each path; width 0 for a model without inputs.
        lengths: valid bins of each path.
        start: state and latents of the first bin, as inferred by :func:`posterior_starts` or chosen; sampled from the
            model where not given.
        z: fixed states of all bins, which then also stand for the state of ``start``; sampled where not given.
        stages: trial stages, for a model whose transitions read them.
        sessions: number of each path's session, for a model of several.

    Raises:
        RunError: the fixed states are not states of the model.
    """
    num_states = fitted.model.num_states
    if z is not None:
        valid = valid_bins(lengths, z.shape[1])
        wrong = np.argwhere(valid & ((z < 0) | (z >= num_states)))
        if len(wrong):
            i, t = wrong[0]
            raise RunError(f"z: path {i}, bin {t} is {z[i, t]}; the model has states 0 to {num_states - 1}.")
        z = np.clip(z, 0, num_states - 1)
    stages = np.zeros((*inputs.shape[:2], 0)) if stages is None else stages
    found = _generate(key, fitted, _driven(inputs, stages, lengths, sessions), start, z)
    states, x, y_mean = (np.asarray(a) for a in found)
    valid = valid_bins(lengths, inputs.shape[1])
    return Generated(np.where(valid, states, -1), masked(x, valid[..., None]), masked(y_mean, valid[..., None]))


def posterior_starts(
    key: PRNGKeyArray,
    fitted: FittedProgram,
    trials: Trials,
    bin: int = 0,
    *,
    filtered: bool = False,
) -> Start:
    """One posterior draw of (z, x) of each trial at a bin, from which :func:`generate` can go on.

    Args:
        key: random key.
        fitted: program, guide and parameters.
        trials: the trials; one that is shorter gives its last bin.
        bin: the bin.
        filtered: given the bins up to this one alone; otherwise given the whole trial.

    Raises:
        RunError: there is no such bin.
    """
    check_bin(bin, trials, "bin")
    batch, first = trials.batch(), np.minimum(bin, trials.lengths - 1)
    if filtered:
        batch = shortened(batch, first)
        fitted = fitted.adapted(key, batch)
    some = partial(starts_of, fitted=fitted, draws=1)
    z, x = over_trials(some, key, batch, first)
    return Start(z[:, 0], x[:, 0])


@jax.jit
def _generate(
    key: Array, fitted: FittedProgram, driven: Batch, start: Start | None, z: Array | None
) -> tuple[Array, Array, Array]:
    return _roll(key, fitted.model, fitted.networks, driven, start, z)


def _driven(
    u: Array | np.ndarray,
    stage: Array | np.ndarray,
    lengths: Array | np.ndarray,
    session: Array | np.ndarray | None,
) -> Batch:
    """Trials to be generated, of which only what drives them is known."""
    return Batch(None, u, None, None, lengths, stage, None, session)


def _roll(
    key: Array,
    model: MRSDS,
    networks: Networks,
    driven: Batch,
    start: Start | tuple[Array, Array] | None,
    z: Array | None = None,
) -> tuple[Array, Array, Array]:
    """States, latents and expected signals, path by path; equal keys use equal random numbers."""
    kind = networks.initial.means.dtype
    driven = driven._replace(u=driven.u.astype(kind), stage=driven.stage.astype(kind))
    switching = model.switching(networks, driven)
    first = None if start is None else (jnp.asarray(start[0], int), jnp.asarray(start[1], kind))
    if z is None:
        states, x = ancestral(switching, key, first)
    else:
        states, x = z, _given_states(key, switching, z, None if first is None else first[1])
    return states, x, networks.emissions.of_trials(driven.session).activity(x)


def _given_states(key: Array, switching: Switching, z: Array, first: Array | None) -> Float[Array, "path bin latent"]:
    """Latents of given states, by the programs with z substituted."""
    first_key, scan_key = random.split(key)
    path = jnp.swapaxes(z, 0, 1)

    def run(program: Program, program_key: Array, state: Array, *args: Array) -> Array:
        with handlers.block(), handlers.substitute(data={"z": state}), handlers.seed(rng_seed=program_key):
            return program(*args)[1]

    x = run(switching.initial, first_key, path[0], switching.inputs[0]) if first is None else first

    def step(before: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        last, state, inputs, step_key = now
        after = run(switching.transition, step_key, state, last, before, inputs)
        return after, after

    keys = random.split(scan_key, path.shape[0] - 1)
    _, rest = lax.scan(step, x, (path[:-1], path[1:], switching.inputs[1:], keys))
    return jnp.swapaxes(jnp.concatenate([x[None], rest]), 0, 1)


def shortened(batch: Batch, first: Int[np.ndarray, " trial"]) -> Batch:
    """Trials that end after bin ``first``; a guide without an encoder has to be adapted to them."""
    known = (np.arange(batch.y.shape[1]) <= first[:, None])[..., None]
    return batch._replace(
        y=np.where(known, batch.y, 0.0),
        u=np.where(known, batch.u, 0.0),
        observed=batch.observed & known,
        visible=batch.visible & known,
        lengths=np.minimum(batch.lengths, first + 1),
    )


@partial(jax.jit, static_argnames="draws")
def starts_of(key: Array, batch: Batch, first: Array, *, fitted: FittedProgram, draws: int) -> tuple[Array, Array]:
    """Draws of (z, x) at bin ``first`` of each trial: (trial, draw) and (trial, draw, latent)."""
    x_key, z_key = random.split(key)
    x = fitted.draws(x_key, batch, draws)
    switching = fitted.model.switching(fitted.networks, batch)

    def at_first(drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        draw_key, path = drawn
        z = sample_path(draw_key, potentials(switching, path)).T
        every = jnp.arange(first.shape[0])
        here = jnp.minimum(first, path.shape[1] - 1)
        return z[every, here], path[every, here]

    z, x = lax.map(at_first, (random.split(z_key, draws), x))
    return jnp.moveaxis(z, 1, 0), jnp.moveaxis(x, 1, 0)


def rolled_ahead(
    key: Array, batch: Batch, first: Array, starts: tuple[Array, Array], model: MRSDS, networks: Networks, horizon: int
) -> tuple[Array, Array, Array]:
    """Paths of every trial and draw from bin ``first`` on: (trial, draw, bin) states, latents; (trial, bin) signals."""
    index = first[:, None] + jnp.arange(horizon + 1)
    index = jnp.minimum(index, batch.y.shape[1] - 1)[..., None]
    states, latents = starts
    trials, draws = states.shape

    def repeated(values: Array) -> Array:
        return jnp.broadcast_to(values[:, None], (trials, draws, *values.shape[1:])).reshape(
            trials * draws, *values.shape[1:]
        )

    u, stage = (repeated(jnp.take_along_axis(a, index, axis=1)) for a in (batch.u, batch.stage))
    session = None if batch.session is None else repeated(batch.session)
    lengths = repeated(jnp.clip(batch.lengths - first, 1, horizon + 1))
    flat = states.reshape(-1), latents.reshape(trials * draws, -1)
    found = _roll(key, model, networks, _driven(u, stage, lengths, session), flat)
    z, x, y_mean = (a.reshape(trials, draws, *a.shape[1:]) for a in found)
    return z, x, y_mean.mean(1)


def check_bin(bin: int, trials: Trials, name: str) -> None:
    last = int(trials.lengths.max()) - 1
    if not 0 <= bin <= last:
        raise RunError(f"{name}: found bin {bin}, the longest trial has bins 0 to {last}.")


def masked(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, values, np.nan)
