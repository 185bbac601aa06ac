"""Start of a fit by Laplace EM: smoothed paths of every trial, states, and a program fitted to both.

1. One state, linear dynamics: smooth, then solve for dynamics, noise and loadings, a few times.
2. An AR-HMM of those means starts K states. Then, in rounds: smooth and solve; weigh states with x integrated out.
3. The networks are fitted to draws of the smoothed paths, and the same two steps repeat with them, a few rounds.
   If asked to, polynomials climb the evidence itself instead, and the networks are fitted to these; see
   :mod:`mrsds_ppl.start.climb.evidence_ascent`.

A path learned by gradients follows a state noise Q that is too large, and Q follows the path; here both have closed
forms, and Q is moved further than its update says, as expectation-maximisation is slow where noise is small. Latents
keep a mean square of 1, so that Q cannot shrink by shrinking them. Source: Zoltowski, Pillow and Linderman (2020),
variational Laplace EM of switching linear systems.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trial_parts import Parts, in_parts, over_parts, put_together
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.covariance import inverse_softplus
from mrsds_ppl.models.filtering import Around, judge, judge_trials, laws_of, relax, relax_and_judge, smooth_trials
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.start.climb.evidence_ascent import climb_evidence, draw_steps, why_not_climb
from mrsds_ppl.start.climb.network_fit import fit_networks
from mrsds_ppl.start.linear_program import LinearNetworks, LinearProgram, improved, linear_program
from mrsds_ppl.start.path_refit import (
    noise_factor,
    refit_networks,
    refit_transitions,
    scaled_noise,
)
from mrsds_ppl.start.unused import share_of_bins
from mrsds_ppl.statespace.arhmm import fit_arhmm
from mrsds_ppl.statespace.hypotheses import likeliest
from mrsds_ppl.statespace.smoothing import PathMoments, linearised

_ONE_STATE_STEPS, _ROUNDS, _STEPS_A_ROUND, _NETWORK_ROUNDS = 10, 6, 5, 5
_STRETCH = 3.0
# Parameters of the program, the posterior of every path, one-hot states.
Start = tuple[dict[str, Any], PathMoments, Array]


class LaplaceStart(NamedTuple):
    """Parameters of the program, the posterior of every path, state probabilities, and use of each state."""

    params: dict[str, Any]
    moments: PathMoments
    states: Float[Array, "trial bin state"]
    occupancy: Float[Array, " state"]


def start_by_smoothing(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    data: Batch,
    *,
    num_refit_steps: int = 400,
    sparsity: float = 0.0,
    evidence_steps: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> LaplaceStart:
    """Laplace EM from parameters whose emissions were set from the data.

    Args:
        key: random key.
        params: parameters of the program by site, with ``emissions$params`` from the data.
        model: the program.
        data: training set, on the device.
        num_refit_steps: of Adam, each time the networks are fitted to draws of the paths.
        sparsity: weight of the penalty on messages between regions, in nats a bin.
        evidence_steps: Gauss-Newton steps on the evidence; with none the networks are fitted in rounds.
        should_stop: asked between rounds; what was found by then is returned.
        say: prints a line of progress.

    Raises:
        RunError: the paths do not stay finite.
    """
    (arhmm_key, refit_key), climb_key = random.split(key), random.fold_in(key, 2)
    u = model.dynamics_inputs(data.u)
    paths, program = _linear_phase(arhmm_key, model.networks_from(params), model, data, u, should_stop)
    start = (_with_program(params, program, paths, program.states), paths, program.states)
    say(f"smoothing: linear dynamics, state noise {np.array2string(_noise(program.networks), precision=3)}")
    climbed = None
    if evidence_steps and (reason := why_not_climb(model)) is not None:
        say(f"smoothing: training.evidence_steps is left out: {reason}")
    elif evidence_steps and not should_stop():
        climbed = _climbed(
            climb_key, model, data, start, program.networks.dynamics,
            num_steps=evidence_steps, num_refit_steps=num_refit_steps, should_stop=should_stop, say=say,
        )  # fmt: skip
    params, paths, states = climbed or _network_rounds(
        refit_key, model, data, start, num_refit_steps=num_refit_steps, sparsity=sparsity, should_stop=should_stop
    )
    if not all(np.isfinite(np.asarray(part)).all() for part in paths):
        raise RunError(
            "the start by smoothing gave paths that are not finite; use an encoder (inference.encoder: convolution), "
            "or leave the start out (training.start.method: none)"
        )
    say(
        f"smoothing: dynamics networks, state noise {np.array2string(_noise(model.networks_from(params)), precision=3)}"
    )
    return LaplaceStart(params, paths, states, share_of_bins(states, data.lengths))


def _network_rounds(
    key: Array,
    model: MRSDS,
    data: Batch,
    start: Start,
    *,
    num_refit_steps: int,
    sparsity: float,
    should_stop: Callable[[], bool],
) -> Start:
    """Networks, noise, states and paths in turns."""
    params, paths, states = start
    of, parts = model.networks_from, in_parts(data)
    regress = partial(refit_networks, num_steps=num_refit_steps, sparsity=sparsity)
    refit = jax.jit(lambda key, params, before, paths, states, stretch: regress(
        key, params, before, model, data, paths, states, stretch=stretch))  # fmt: skip
    suit = jax.jit(lambda params, x, states: scaled_noise(
        params, noise_factor(of(params), model, data, x, states)))  # fmt: skip
    for number in range(_NETWORK_ROUNDS):
        if should_stop():
            break
        # The first paths are those of the linear dynamics, which the networks do not yet stand for.
        stretch = _STRETCH if number else 1.0
        params = refit(random.fold_in(key, number), params, of(params).dynamics, paths, states, stretch)
        params = suit(params, paths.mean, states)
        if model.num_states > 1:
            _, judged = relax_and_judge(of(params), model, parts, paths.mean, states)
            states = judged.states
        paths = relax(of(params), model, parts, paths.mean, states)
    return params, paths, states


def _climbed(
    key: Array,
    model: MRSDS,
    data: Batch,
    start: Start,
    linear: Any,
    *,
    num_steps: int,
    num_refit_steps: int,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Start | None:
    """Networks fitted to what climbed the evidence from linear dynamics, or None where they have not gained by it."""
    params, paths, states = start
    networks = model.networks_from(params)._replace(dynamics=linear)
    climb = climb_evidence(key, networks, model, data, paths, states, num_steps=num_steps, should_stop=should_stop)
    last, before = climb[-1], climb[0].evidence
    paths, states, fit_key = last.paths, last.states, random.fold_in(key, num_steps + 1)
    steps = draw_steps(fit_key, model, data, paths, states)
    fitted = fit_networks(
        fit_key, params["dynamics$params"], last.networks.dynamics, steps.before, steps.u, steps.weights
    )
    params = {**params, "dynamics$params": fitted}
    if model.num_states > 1 and (model.options.xz or model.options.uz):
        refit = partial(refit_transitions, num_steps=num_refit_steps)
        params = jax.jit(lambda key, params, paths, states: refit(key, params, model, data, paths, states))(
            random.fold_in(key, num_steps + 2), params, paths, states
        )
    parts = in_parts(data)
    evidence = judge(model.networks_from(params), model, parts, paths.mean).nats_a_bin(parts)
    say(
        f"smoothing: evidence {before:.4f} nats a bin, after {len(climb) - 1} steps on it {last.evidence:.4f}, "
        f"of the networks {evidence:.4f}"
    )
    if evidence > before:
        return params, paths, states
    say("smoothing: the steps on the evidence did not raise it, so that the networks are fitted in rounds instead")
    return None


def _linear_phase(
    key: Array, networks: Networks, model: MRSDS, data: Batch, u: Array, should_stop: Callable[[], bool]
) -> tuple[PathMoments, LinearProgram]:
    # As one state at first, but with copies for all, so that nothing is compiled twice.
    program = linear_program(networks, data, num_states=model.num_states, num_inputs=u.shape[-1])
    parts = in_parts(data)
    x = jnp.zeros((*data.y.shape[:2], model.num_latents), data.y.dtype)
    for _ in range(_ONE_STATE_STEPS):
        program, paths = _linear_step(program, data, parts, u, x)
        x = paths.mean
    if model.num_states == 1:
        return paths, program
    states = _arhmm_states(key, x, u, data.lengths, num_states=model.num_states)
    program = _begun(program, states, data, u, paths)
    for _ in range(_ROUNDS):
        if should_stop():
            break
        for _ in range(_STEPS_A_ROUND):
            program, paths = _linear_step(program, data, parts, u, x)
            x = paths.mean
        program = _with_states(program, _linear_states(program, parts, u, x), data)
    return paths, program


def _linear_step(
    program: LinearProgram, data: Batch, parts: Parts, u: Array, x: Array
) -> tuple[LinearProgram, PathMoments]:
    laws = laws_of(program.networks)

    def smoothed(batch: Batch, u: Array, x: Array, states: Array) -> PathMoments:
        return smooth_trials(laws, batch, _linear_around(program.networks, program.log_transition, batch, x, u), states)

    paths = put_together(parts, over_parts(smoothed, parts, u, x, program.states))
    return _improved(program, data, u, paths)


def _linear_states(program: LinearProgram, parts: Parts, u: Array, x: Array) -> Array:
    laws = laws_of(program.networks)

    def judged(batch: Batch, u: Array, x: Array) -> Array:
        known = _linear_around(program.networks, program.log_transition, batch, x, u)
        return judge_trials(laws, batch.lengths, known)[0]

    return put_together(parts, over_parts(judged, parts, u, x))


@compiled
def _linear_around(networks: LinearNetworks, log_transition: Array, batch: Batch, x: Array, u: Array) -> Around:
    moves = jnp.broadcast_to(log_transition, (x.shape[0], x.shape[1] - 1, *log_transition.shape))
    return *linearised(networks, batch, x, u), moves


@jax.jit
def _improved(program: LinearProgram, data: Batch, u: Array, paths: PathMoments) -> tuple[LinearProgram, PathMoments]:
    return improved(program, data, u, paths).normalised(data, paths)


@jax.jit
def _with_states(program: LinearProgram, states: Array, data: Batch) -> LinearProgram:
    return program.with_states(states, data)


@partial(jax.jit, static_argnames="num_states")
def _arhmm_states(key: Array, x: Array, u: Array, lengths: Array, *, num_states: int) -> Array:
    fit = fit_arhmm(key, x, u, lengths, num_states=num_states)
    return likeliest(jnp.moveaxis(fit.smoothed.marginals, -1, 0))


@jax.jit
def _begun(program: LinearProgram, states: Array, data: Batch, u: Array, paths: PathMoments) -> LinearProgram:
    return improved(program.begin(states), data, u, paths, step=1.0)


def _with_program(params: dict[str, Any], program: LinearProgram, paths: PathMoments, states: Array) -> dict[str, Any]:
    """What the linear phase knows of emissions, noise, transitions and the first bin."""
    # In numpy: compiling each of these few operations would take longer than all of them.
    linear, first, begun = program.networks, np.asarray(paths.mean)[:, 0], np.asarray(states)[:, 0]
    params = {**params, "emissions$params": linear.emissions}
    spread = np.sqrt((first**2).mean(0) - first.mean(0) ** 2 + 0.05)

    def put(name: str, where: Callable[[Any], Any], value: Any) -> None:
        if name in params:
            params[name] = eqx.tree_at(where, params[name], jnp.asarray(value, where(params[name]).dtype))

    put("dynamics$params", lambda part: part.noise.raw_diagonal, linear.dynamics.noise.raw_diagonal)
    put("transitions$params", lambda part: part.bias, program.log_transition)
    put("initial$params", lambda part: part.noise.raw_diagonal, inverse_softplus(spread))
    put("initial$params", lambda part: part.means, np.tile(first.mean(0), (begun.shape[-1], 1)))
    put("initial$params", lambda part: part.state_logits, np.log(begun.mean(0) + 1e-2))
    return params


def _noise(networks: Any) -> np.ndarray:
    return np.asarray(networks.dynamics.noise.scale)
