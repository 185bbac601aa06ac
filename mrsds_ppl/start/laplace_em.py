"""Start by Laplace EM: smoothed paths of every trial, states, and a program fitted to both.

1. One state, linear dynamics: smooth, then solve for dynamics, noise and loadings, a few times.
2. An AR-HMM of those means starts K states. Then, in rounds: smooth and solve; find the states with x integrated out.
3. The networks are fitted to draws of the smoothed paths, and the same two steps repeat with them, a few rounds.
   Where polynomials can stand for the dynamics they ascend the evidence itself instead, and the networks are fitted
   to these; see :mod:`mrsds_ppl.start.ascent.evidence_ascent`.

A path learned by gradients follows a state noise Q that is too large, and Q follows the path; here both have closed
forms, and Q is moved further than its update says, as expectation-maximisation is slow where noise is small. Latents
keep a mean square of 1, so that Q cannot shrink by shrinking them. Source: Zoltowski, Pillow and Linderman (2020),
variational Laplace EM of switching linear systems.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, PRNGKeyArray, PyTree

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import Parts, in_parts, over_parts, put_together
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.covariance import inverse_softplus
from mrsds_ppl.models.dynamics import with_scaled_noise
from mrsds_ppl.models.filtering import (
    SmoothedPaths,
    find_states,
    shared_of,
    smooth_and_find_states,
    smooth_paths,
    smooth_uphill,
    states_of_trials,
)
from mrsds_ppl.models.linearised import Program, linearised_with, with_dynamics
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.start.ascent.evidence_ascent import draw_rows, evidence_ascent, why_no_ascent
from mrsds_ppl.start.ascent.network_fit import fit_networks
from mrsds_ppl.start.linear_program import LinearNetworks, LinearProgram, improved, linear_program
from mrsds_ppl.start.refit.path_refit import Refit, noise_factor, refit_networks, refit_transitions
from mrsds_ppl.statespace.arhmm import fit_arhmm
from mrsds_ppl.statespace.gaussian_sum import likeliest
from mrsds_ppl.statespace.linear_gaussian import TrialTerms
from mrsds_ppl.statespace.smoothing import PathMoments
from mrsds_ppl.train.progress import Rounds

_ONE_STATE_STEPS, _ROUNDS, _STEPS_A_ROUND, _NETWORK_ROUNDS = 10, 6, 5, 5
_STRETCH = 3.0
_DYNAMICS = "dynamics$params"


class SmoothedFit(NamedTuple):
    """Parameters of the program by site, and the posterior of every path under it."""

    params: dict[str, PyTree]
    paths: SmoothedPaths


@dataclass(frozen=True)
class LaplaceEM:
    """Laplace EM from parameters whose emissions were set from the data.

    Args:
        num_refit_steps: of Adam, each time the networks are fitted to draws of the paths.
        sparsity: weight of the penalty on messages between regions, in nats a bin.
        evidence_steps: Gauss-Newton steps on the evidence; with none the networks are fitted in rounds.
        should_stop: asked after each round; what was found by then is returned.
        say: prints a line of progress.
        progress: whether a bar is shown.
    """

    num_refit_steps: int = 400
    sparsity: float = 0.0
    evidence_steps: int = 6
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    progress: bool = False

    def __call__(self, key: PRNGKeyArray, params: dict[str, PyTree], model: MRSDS, data: Batch) -> SmoothedFit:
        """Program and paths.

        Args:
            key: random key.
            params: parameters of the program by site, with ``emissions$params`` from the data.
            model: the program.
            data: training set, on the device.

        Raises:
            RunError: the paths do not stay finite.
        """
        num_rounds = _ONE_STATE_STEPS + (_ROUNDS if model.num_states > 1 else 0)
        ascends = self.evidence_steps and why_no_ascent(model) is None
        num_rounds += self.evidence_steps + 2 if ascends else _NETWORK_ROUNDS
        with Rounds("smoothing", num_rounds, self.say, self.progress) as rounds:

            def asked() -> bool:
                rounds.next()
                return self.should_stop()

            return replace(self, should_stop=asked)._found(key, params, model, data)

    def _found(self, key: PRNGKeyArray, params: dict[str, PyTree], model: MRSDS, data: Batch) -> SmoothedFit:
        (arhmm_key, refit_key), ascent_key = random.split(key), random.fold_in(key, 2)
        paths, program = self._linear_phase(arhmm_key, model.networks_from(params), model, data)
        start = SmoothedFit(_with_program(params, program, paths), SmoothedPaths(paths, program.states))
        self.say(f"smoothing: linear dynamics, state noise {_noise(program.networks)} of latents of mean square 1")
        found = None
        if self.evidence_steps and (reason := why_no_ascent(model)) is not None:
            self.say(f"smoothing: rounds of networks, without steps on the evidence: {reason}")
        elif self.evidence_steps and not self.should_stop():
            found = self._by_ascent(ascent_key, model, data, start, program.networks)
        found = found or self._by_rounds(refit_key, model, data, start)
        if not all(np.isfinite(np.asarray(part)).all() for part in found.paths.moments):
            raise RunError(
                "the start by smoothing gave paths that are not finite; use an encoder (inference.encoder: "
                "convolution), or leave the start out (training.start.method: none)"
            )
        self.say(f"smoothing: dynamics networks, state noise {_noise(model.networks_from(found.params))}")
        return found

    def _by_rounds(self, key: Array, model: MRSDS, data: Batch, start: SmoothedFit) -> SmoothedFit:
        """Networks, noise, states and paths in turns."""
        of, parts, (params, paths) = model.networks_from, in_parts(data), start

        @jax.jit
        def refit(key: Array, params: dict[str, PyTree], paths: SmoothedPaths, stretch: Array) -> dict[str, PyTree]:
            how = Refit(self.num_refit_steps, stretch, self.sparsity)
            return refit_networks(key, params, model, data, paths, how)

        @jax.jit
        def suit(params: dict[str, PyTree], paths: SmoothedPaths) -> dict[str, PyTree]:
            factor = noise_factor(of(params), model, data, paths)
            return {**params, _DYNAMICS: with_scaled_noise(params[_DYNAMICS], factor)}

        for number in range(_NETWORK_ROUNDS):
            if self.should_stop():
                break
            # The first paths are those of the linear dynamics, which the networks do not yet stand for.
            params = refit(random.fold_in(key, number), params, paths, _STRETCH if number else 1.0)
            params = suit(params, paths)
            states, x = paths.states, paths.moments.mean
            if model.num_states > 1:
                states = smooth_and_find_states(of(params), model, parts, x, states)[1].states
            paths = SmoothedPaths(smooth_paths(of(params), model, parts, x, states), states)
        return SmoothedFit(params, paths)

    def _by_ascent(
        self, key: Array, model: MRSDS, data: Batch, start: SmoothedFit, linear: LinearNetworks
    ) -> SmoothedFit | None:
        """Networks fitted to what the ascent of the evidence found from linear dynamics, or None without a gain."""
        num_steps, params, found = self.evidence_steps, start.params, []
        networks = with_dynamics(model.networks_from(params), linear.dynamics)
        ascent = evidence_ascent(key, networks, model, data, start.paths)
        for _, now in zip(range(num_steps + 1), ascent, strict=False):
            found.append(now)
            if self.should_stop():
                return None
        last, before, fit_key = found[-1], found[0].evidence, random.fold_in(key, num_steps + 1)
        rows = draw_rows(fit_key, model, data, last.paths)
        fitted = fit_networks(fit_key, params[_DYNAMICS], last.cubic, rows)
        params = {**params, _DYNAMICS: fitted}
        if model.num_states > 1 and (model.options.xz or model.options.uz):
            params = jax.jit(lambda key, params, paths: refit_transitions(
                key, params, model, data, paths, self.num_refit_steps
            ))(random.fold_in(key, num_steps + 2), params, last.paths)  # fmt: skip
        parts = in_parts(data)
        evidence = find_states(model.networks_from(params), model, parts, last.paths.moments.mean).nats_a_bin(parts)
        self.say(
            f"smoothing: evidence {before:.4f} nats a bin, after {len(found) - 1} steps on it {last.evidence:.4f}, "
            f"of the networks {evidence:.4f}"
        )
        if evidence > before:
            return SmoothedFit(params, last.paths)
        self.say(
            "smoothing: the steps on the evidence did not raise it, so that the networks are fitted in rounds instead"
        )
        return None

    def _linear_phase(
        self, key: Array, networks: Networks, model: MRSDS, data: Batch
    ) -> tuple[PathMoments, LinearProgram]:
        u, parts = model.dynamics_inputs(data.u), in_parts(data)
        for _, (paths, program) in zip(range(_ONE_STATE_STEPS), one_state(networks, model, data), strict=False):
            if self.should_stop():
                return paths, program
        if model.num_states == 1:
            return paths, program
        x = paths.mean
        states = _arhmm_states(key, x, u, data.lengths, num_states=model.num_states)
        program = _begun(program, states, data, u, paths)
        for _ in range(_ROUNDS):
            if self.should_stop():
                break
            for _ in range(_STEPS_A_ROUND):
                program, paths = _linear_step(program, data, parts, u, x)
                x = paths.mean
            program = _with_states(program, _linear_states(program, parts, u, x), data)
        return paths, program


def one_state(networks: Networks, model: MRSDS, data: Batch) -> Iterator[tuple[PathMoments, LinearProgram]]:
    """Steps of Laplace EM of a linear program of one state, without end; emissions begin as those of ``networks``."""
    # With copies for all states, so that nothing is compiled twice.
    u, parts = model.dynamics_inputs(data.u), in_parts(data)
    program = linear_program(networks, data, num_states=model.num_states, num_inputs=u.shape[-1])
    x = jnp.zeros((*data.y.shape[:2], model.num_latents), data.y.dtype)
    while True:
        program, paths = _linear_step(program, data, parts, u, x)
        x = paths.mean
        yield paths, program


def _linear_step(
    program: LinearProgram, data: Batch, parts: Parts, u: Array, x: Array
) -> tuple[LinearProgram, PathMoments]:
    shared = shared_of(program.networks)

    def smoothed(batch: Batch, u: Array, x: Array, states: Array) -> PathMoments:
        trials = _linear_around(program.networks, program.log_transition, batch, x, u)
        return smooth_uphill(program.networks, shared, batch, u, states, trials, x)

    paths = put_together(parts, over_parts(smoothed, parts, u, x, program.states))
    return _improved(program, data, u, paths)


def _linear_states(program: LinearProgram, parts: Parts, u: Array, x: Array) -> Array:
    shared = shared_of(program.networks)

    def found(batch: Batch, u: Array, x: Array) -> Array:
        return states_of_trials(shared, _linear_around(program.networks, program.log_transition, batch, x, u)).states

    return put_together(parts, over_parts(found, parts, u, x))


@compiled
def _linear_around(networks: LinearNetworks, log_transition: Array, batch: Batch, x: Array, u: Array) -> TrialTerms:
    moves = jnp.broadcast_to(log_transition, (x.shape[0], x.shape[1] - 1, *log_transition.shape))
    return linearised_with(networks, batch, x, u, moves)


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


def _with_program(params: dict[str, PyTree], program: LinearProgram, paths: PathMoments) -> dict[str, PyTree]:
    """What the linear phase knows of emissions, noise, transitions and the first bin."""
    # In numpy: compiling each of these few operations would take longer than all of them.
    linear, first, begun = program.networks, np.asarray(paths.mean)[:, 0], np.asarray(program.states)[:, 0]
    params = {**params, "emissions$params": linear.emissions}
    spread = np.sqrt((first**2).mean(0) - first.mean(0) ** 2 + 0.05)

    def put(name: str, where: Callable[[PyTree], PyTree], value: PyTree) -> None:
        if name in params:
            params[name] = eqx.tree_at(where, params[name], jnp.asarray(value, where(params[name]).dtype))

    put("dynamics$params", lambda part: part.noise.raw_diagonal, linear.dynamics.noise.raw_diagonal)
    put("transitions$params", lambda part: part.bias, program.log_transition)
    put("initial$params", lambda part: part.noise.raw_diagonal, inverse_softplus(spread))
    put("initial$params", lambda part: part.means, np.tile(first.mean(0), (begun.shape[-1], 1)))
    put("initial$params", lambda part: part.state_logits, np.log(begun.mean(0) + 1e-2))
    return params


def _noise(program: Program) -> str:
    return np.array2string(np.asarray(program.dynamics.noise.scale), precision=3)
