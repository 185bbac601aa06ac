"""Start of a fit by Laplace EM: smoothed paths of every trial, states, and a program fitted to both.

1. One state, linear dynamics: smooth, then solve for dynamics, noise and loadings, a few times.
2. An AR-HMM of those means starts K states. Then, in rounds: smooth and solve; weigh states with x integrated out.
3. The networks are fitted to draws of the smoothed paths, and the same two steps repeat with them, a few rounds.
   If asked to, polynomials climb the evidence itself instead, and the networks are fitted to these; see
   :mod:`mrsds_ppl.inference.evidence_ascent`.

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
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.inference.arhmm import fit_arhmm
from mrsds_ppl.inference.evidence_ascent import climb_evidence, draw_steps, why_not_climb
from mrsds_ppl.inference.hypotheses import Weighed, likeliest, weigh_states
from mrsds_ppl.inference.linear_program import LinearProgram, improved, linear_program
from mrsds_ppl.inference.network_fit import fit_networks
from mrsds_ppl.inference.path_refit import (
    noise_factor,
    refit_networks,
    refit_transitions,
    relax,
    scaled_noise,
    weigh,
)
from mrsds_ppl.inference.smoothing import PathMoments, linearised, smooth_path
from mrsds_ppl.inference.unused import share_of_bins
from mrsds_ppl.models.covariance import inverse_softplus
from mrsds_ppl.models.mrsds import MRSDS, Networks

_ONE_STATE_STEPS, _ROUNDS, _STEPS_A_ROUND, _NETWORK_ROUNDS = 10, 6, 5, 5
_STRETCH = 3.0
# Parameters of the program, the posterior of every path, one-hot states.
Start = tuple[dict[str, Any], PathMoments, Array]
# Factors of Q's Cholesky factor while new trials are smoothed: first loose, then as fitted.
_FIRST_FACTOR, _FACTORS, _KEPT = 8.0, (6.0, 4.0, 3.0, 2.0, 1.5, 1.2, 1.0, 1.0), 32


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
            "or leave the start out (training.switch_init_steps: 0)"
        )
    say(
        f"smoothing: dynamics networks, state noise {np.array2string(_noise(model.networks_from(params)), precision=3)}"
    )
    return LaplaceStart(params, paths, states, share_of_bins(states, data.lengths))


@partial(jax.jit, static_argnames="model")
def smooth_trials(
    params: dict[str, Any], model: MRSDS, batch: Batch
) -> tuple[PathMoments, Float[Array, "trial bin state"]]:
    """Smoothed paths and likeliest states of trials under a fitted program, from nothing but their visible signals.

    Under a Q as small as the true one, paths that start at zero stay at what the dynamics do there. They begin with Q
    several times as large, which comes down round by round.

    Args:
        params: values of the program's sites.
        model: the program.
        batch: the trials.
    """
    kind = model.networks_from(params).dynamics.noise.scale.dtype
    x = jnp.zeros((*batch.y.shape[:2], model.num_latents), kind)
    states = jnp.full((*x.shape[:2], model.num_states), 1.0 / model.num_states, x.dtype)

    def again(carry: tuple[PathMoments, Array], factor: Array) -> tuple[tuple[PathMoments, Array], None]:
        paths, states = carry
        loose = model.networks_from(scaled_noise(params, factor))
        if model.num_states > 1:
            states = likeliest(weigh(loose, model, batch, paths.mean, num_kept=_KEPT).probabilities)
        return (relax(loose, model, batch, paths.mean, states), states), None

    first = relax(model.networks_from(scaled_noise(params, _FIRST_FACTOR)), model, batch, x, states)
    return lax.scan(again, (first, states), jnp.asarray(_FACTORS, x.dtype))[0]


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
    of = model.networks_from
    regress = partial(refit_networks, num_steps=num_refit_steps, sparsity=sparsity)
    refit = jax.jit(lambda key, params, before, paths, states, stretch: regress(
        key, params, before, model, data, paths, states, stretch=stretch))  # fmt: skip
    suit = jax.jit(lambda params, x, states: scaled_noise(
        params, noise_factor(of(params), model, data, x, states)))  # fmt: skip
    smooth = jax.jit(lambda params, x, states: relax(of(params), model, data, x, states))
    judge = jax.jit(lambda params, x: likeliest(weigh(of(params), model, data, x).probabilities))
    for number in range(_NETWORK_ROUNDS):
        if should_stop():
            break
        # The first paths are those of the linear dynamics, which the networks do not yet stand for.
        stretch = _STRETCH if number else 1.0
        params = refit(random.fold_in(key, number), params, of(params).dynamics, paths, states, stretch)
        params = suit(params, paths.mean, states)
        if model.num_states > 1:
            states = judge(params, smooth(params, paths.mean, states).mean)
        paths = smooth(params, paths.mean, states)
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
    judge = jax.jit(lambda params, x: weigh(model.networks_from(params), model, data, x).log_evidence.sum())
    evidence = float(judge(params, paths.mean) / data.lengths.sum())
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
    program = linear_program(networks, data, num_states=1, num_inputs=u.shape[-1])
    x = jnp.zeros((*data.y.shape[:2], model.num_latents), data.y.dtype)
    for _ in range(_ONE_STATE_STEPS):
        program, paths = _linear_step(program, data, u, x)
        x = paths.mean
    if model.num_states == 1:
        return paths, program
    states = _arhmm_states(key, x, u, data.lengths, num_states=model.num_states)
    program = _spread(program, states, data, u, paths)
    for _ in range(_ROUNDS):
        if should_stop():
            break
        for _ in range(_STEPS_A_ROUND):
            program, paths = _linear_step(program, data, u, x)
            x = paths.mean
        program = _with_weighed_states(program, data, u, x)
    return paths, program


@jax.jit
def _linear_step(program: LinearProgram, data: Batch, u: Array, x: Array) -> tuple[LinearProgram, PathMoments]:
    networks = program.networks
    paths = smooth_path(networks, data, *linearised(networks, data, x, u), program.states)
    program = improved(program, data, u, paths)
    return program.normalised(data, paths)


@partial(jax.jit, static_argnames="num_states")
def _arhmm_states(key: Array, x: Array, u: Array, lengths: Array, *, num_states: int) -> Array:
    fit = fit_arhmm(key, x, u, lengths, num_states=num_states)
    return likeliest(jnp.moveaxis(fit.smoothed.marginals, -1, 0))


@jax.jit
def _spread(program: LinearProgram, states: Array, data: Batch, u: Array, paths: PathMoments) -> LinearProgram:
    return improved(program.spread(states), data, u, paths, step=1.0)


@jax.jit
def _with_weighed_states(program: LinearProgram, data: Batch, u: Array, x: Array) -> LinearProgram:
    return program.with_states(likeliest(_weigh_linear(program, data, u, x).probabilities), data)


def _weigh_linear(program: LinearProgram, data: Batch, u: Array, x: Array) -> Weighed:
    networks = program.networks
    pairs = (x.shape[0], x.shape[1] - 1)
    moves = jnp.broadcast_to(program.log_transition, (*pairs, *program.log_transition.shape))
    return weigh_states(networks, data.lengths, *linearised(networks, data, x, u), moves)


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
