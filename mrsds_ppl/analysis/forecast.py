"""Running a fitted model forward: generated trials, forecasts against what was recorded, and silenced messages.

All rollouts run the program's own transition, so that z and x are sampled as in the model; expectations over z are
averages over sampled paths.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro import handlers

from mrsds_ppl.analysis.alignment import valid_bins
from mrsds_ppl.analysis.communication import (
    every_message,
    input_labels,
    over_trials,
    path_messages,
    posterior_paths,
    region_labels,
)
from mrsds_ppl.analysis.metrics import Scores, evaluate
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.inference.chain import sample_path
from mrsds_ppl.inference.markov import Switching, ancestral, potentials
from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.models.mrsds import MRSDS, Networks

_DEFAULT_CUTS = 8


class Start(NamedTuple):
    """State and latents of the first bin of each path."""

    z: Int[np.ndarray, " path"]
    x: Float[np.ndarray, "path latent"]


class Generated(NamedTuple):
    """Paths of the model: states (-1 in padding), latents and expected signals (NaN in padding)."""

    z: Int[np.ndarray, "path time"]
    x: Float[np.ndarray, "path time latent"]
    y_mean: Float[np.ndarray, "path time neuron"]


class Forecast(NamedTuple):
    """Expected signals 1 ... H bins after each cut, and how well they match.

    ``y_mean[c, i, h - 1]`` is E[y_{t+h} | bins up to t] of trial i, t = ``cuts[c]``; NaN past the end of the trial.
    ``scores[h - 1]`` compares h bins ahead over all trials and cuts.
    """

    cuts: Int[np.ndarray, " cut"]
    y_mean: Float[np.ndarray, "cut trial horizon neuron"]
    scores: list[Scores]

    @property
    def r2(self) -> Float[np.ndarray, " horizon"]:
        """R^2 at each horizon, averaged over neurons."""
        return np.array([score.r2 for score in self.scores])


class Silencing(NamedTuple):
    """Paths from the same inferred states with the same random numbers, with and without some messages.

    ``bins`` counts from the start of the trial; its first is where both start. NaN, and -1 in states, past the end of
    a trial. ``y_intact`` and ``y_silenced`` are expected signals, averaged over draws.
    """

    bins: Int[np.ndarray, " bin"]
    z_intact: Int[np.ndarray, "draw trial bin"]
    z_silenced: Int[np.ndarray, "draw trial bin"]
    x_intact: Float[np.ndarray, "draw trial bin latent"]
    x_silenced: Float[np.ndarray, "draw trial bin latent"]
    y_intact: Float[np.ndarray, "trial bin neuron"]
    y_silenced: Float[np.ndarray, "trial bin neuron"]

    @property
    def x_difference(self) -> Float[np.ndarray, "draw trial bin latent"]:
        """Latents without the messages less those with them."""
        return self.x_silenced - self.x_intact

    @property
    def y_difference(self) -> Float[np.ndarray, "trial bin neuron"]:
        """Expected signals without the messages less those with them."""
        return self.y_silenced - self.y_intact


class SilencedDynamics(eqx.Module):
    """Dynamics some of whose messages are replaced by constants: f_k - sum of (message - held) over the silent ones.

    Args:
        dynamics: the fitted dynamics.
        silent: 1 for each message that is replaced.
        held: what takes its place; zero leaves the message out.
    """

    dynamics: Dynamics
    silent: Float[Array, "target source"]
    held: Float[Array, "state target source latent"]

    @property
    def noise(self) -> Any:
        """Q, unchanged."""
        return self.dynamics.noise

    def means(
        self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]
    ) -> Float[Array, "state *batch latents"]:
        """The mean of every state without the silent messages."""
        intact = self.dynamics.means(x, u)
        told = every_message(self.dynamics, x.reshape(-1, x.shape[-1]), u.reshape(intact[0, ..., 0].size, u.shape[-1]))
        lost = jnp.einsum("rs,krsnd->knrd", self.silent, told - self.held[:, :, :, None])
        width = lost.shape[-1]
        slots = np.concatenate([r * width + np.arange(n) for r, n in enumerate(self.dynamics.latent_sizes)])
        return intact - lost.reshape(*lost.shape[:2], -1)[..., slots].reshape(intact.shape)


def generate(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    inputs: Float[np.ndarray, "path time input"],
    lengths: Int[np.ndarray, " path"],
    *,
    start: Start | None = None,
    z: Int[np.ndarray, "path time"] | None = None,
    stages: Float[np.ndarray, "path time stage"] | None = None,
) -> Generated:
    """Paths sampled from the model.

    Args:
        key: random key.
        params: fitted parameters by site.
        model: the program.
        inputs: u of each path; width 0 for a model without inputs.
        lengths: valid bins of each path.
        start: state and latents of the first bin, as inferred by :func:`posterior_starts` or chosen; sampled from the
            model where not given.
        z: fixed states of all bins, which then also stand for the state of ``start``; sampled where not given.
        stages: trial stages, for a model whose transitions read them.

    Raises:
        RunError: the fixed states are not states of the model.
    """
    if z is not None:
        valid = valid_bins(lengths, z.shape[1])
        wrong = np.argwhere(valid & ((z < 0) | (z >= model.num_states)))
        if len(wrong):
            i, t = wrong[0]
            raise RunError(f"z: path {i}, bin {t} is {z[i, t]}; the model has states 0 to {model.num_states - 1}.")
        z = np.clip(z, 0, model.num_states - 1)
    stages = np.zeros((*inputs.shape[:2], 0)) if stages is None else stages
    found = _generate(key, params, inputs, stages, lengths, start, z, model=model)
    states, x, y_mean = (np.asarray(a) for a in found)
    valid = valid_bins(lengths, inputs.shape[1])
    return Generated(np.where(valid, states, -1), _masked(x, valid[..., None]), _masked(y_mean, valid[..., None]))


def posterior_starts(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    trials: Trials,
    bin: int = 0,
    *,
    filtered: bool = False,
) -> Start:
    """One posterior draw of (z, x) of each trial at a bin, from which :func:`generate` can go on.

    Args:
        key: random key.
        params: fitted parameters by site.
        model, guide: program and guide.
        trials: the trials; one that is shorter gives its last bin.
        bin: the bin.
        filtered: given the bins up to this one alone; otherwise given the whole trial.

    Raises:
        RunError: there is no such bin.
    """
    _check_bin(bin, trials, "bin")
    some = partial(_starts, params=params, model=model, guide=guide, draws=1, filtered=filtered)
    z, x = over_trials(some, key, trials.batch(), np.minimum(bin, trials.lengths - 1))
    return Start(z[:, 0], x[:, 0])


def forecast(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    trials: Trials,
    horizon: int,
    draws: int = 50,
    *,
    cuts: Sequence[int] | np.ndarray | None = None,
    filtered: bool = True,
) -> Forecast:
    """Expected signals up to ``horizon`` bins after some bins t, z and x marginalised by sampling, and their R^2.

        E[y_{t+h} | y_{1..t}] = average of C(x_{t+h}) over paths from draws of (z_t, x_t) given y_{1..t}

    An encoder sees a whole trial, so its posterior of bin t knows the future. An honest forecast from t therefore
    infers the trial anew as one that ends after t: nothing later, inputs included, reaches the encoder. The rollout is
    then given the later inputs, as they are known in an experiment. R^2 at h is over all cuts and trials that have
    both bins, relative to each neuron's mean over what is scored.

    Args:
        key: random key.
        params: fitted parameters by site.
        model, guide: program and guide.
        trials: the trials.
        horizon: H, in bins.
        draws: paths that are averaged; the error of the average adds 1/draws of the paths' variance to the MSE.
        cuts: the bins t to forecast from; by default eight, evenly spread.
        filtered: False starts from the posterior given the whole trial instead: no forecast, but it tells the
            dynamics' part of the error from that of an encoder that is bad at the ends of trials.

    Raises:
        RunError: no bin of any trial is that far ahead, or a cut does not exist.
    """
    latest = int(trials.lengths.max()) - 1 - horizon
    if horizon < 1 or latest < 0:
        raise RunError(f"horizon: found {horizon}, the longest trial allows 1 to {int(trials.lengths.max()) - 1} bins.")
    if cuts is None:
        cuts = np.unique(np.linspace(min(max(latest // _DEFAULT_CUTS, 1), latest), latest, _DEFAULT_CUTS).round())
    bins = np.asarray(cuts, int)
    for cut in bins:
        _check_bin(int(cut), trials, "cuts")
    some = partial(_expected, params=params, model=model, guide=guide, draws=draws, horizon=horizon, filtered=filtered)
    batch = trials.batch()
    found = [over_trials(some, random.fold_in(key, cut), batch, np.full(trials.num_trials, cut))[:, 1:] for cut in bins]
    later = bins[:, None] + np.arange(1, horizon + 1)
    index = np.minimum(later, trials.num_bins - 1)
    inside = later < trials.lengths[:, None, None]  # (trial, cut, horizon)
    y_mean = np.stack(found, axis=1)
    counts = model.options.emission == "poisson"
    scores = []
    for h in range(horizon):
        observed = trials.observed[:, index[:, h]] & inside[:, :, h, None]
        scores.append(evaluate(trials.y[:, index[:, h]], observed, y_mean[:, :, h], counts))
    return Forecast(bins, np.moveaxis(_masked(y_mean, inside[..., None]), 0, 1), scores)


def silence(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    trials: Trials,
    *,
    region: int | str | None = None,
    message: tuple[int | str, int | str] | None = None,
    from_bin: int = 0,
    horizon: int | None = None,
    draws: int = 20,
    hold: Literal["nothing", "mean"] = "nothing",
) -> Silencing:
    """What would have followed a bin, had a region fallen silent or one message not arrived.

    Pairs of paths start from the same draw of (z, x) given the whole trial and use the same random numbers, so that
    their difference is the effect of the messages alone. With ``hold="nothing"`` the message is left out of the mean,
    f_k - m_k^{rs}. Additive messages are known only up to a constant, and leaving one out takes its constant along;
    ``hold="mean"`` puts its average in each state in its place, which only takes away what varies and is known.

    Args:
        key: random key.
        params: fitted parameters by site.
        model, guide: program and guide.
        trials: the trials.
        region: name or index of the region all of whose messages to other regions are silenced, or
        message: (source, target) of the one message that is; the source may be an input, named ``input 0`` or so.
        from_bin: the last bin before the change.
        horizon: bins after it; by default up to the end of the longest trial.
        draws: pairs of paths for each trial.
        hold: what takes the place of the message.

    Raises:
        RunError: neither or both of region and message, or names or bins that do not exist.
    """
    silent = _silent(model, trials, region, message)
    _check_bin(from_bin, trials, "from_bin")
    horizon = int(trials.lengths.max()) - 1 - from_bin if horizon is None else horizon
    if horizon < 1:
        raise RunError(f"horizon: found {horizon} bins after bin {from_bin}; need at least 1.")
    run_key, mean_key = random.split(key)
    width = max(model.latent_sizes)
    held = np.zeros((model.num_states, *silent.shape, width))
    if hold == "mean":
        held = _state_means(mean_key, params, model, guide, trials, draws)
    some = partial(
        _pairs,
        params=params,
        silent=silent,
        held=held,
        model=model,
        guide=guide,
        draws=draws,
        horizon=horizon,
    )
    first = np.full(trials.num_trials, from_bin)
    intact, silenced = over_trials(some, run_key, trials.batch(), first)
    bins = np.arange(from_bin, from_bin + horizon + 1)
    inside = bins < trials.lengths[:, None]

    def by_draw(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values, 1, 0)

    return Silencing(
        bins,
        *(np.where(inside, by_draw(paths[0]), -1) for paths in (intact, silenced)),
        *(_masked(by_draw(paths[1]), inside[..., None]) for paths in (intact, silenced)),
        *(_masked(paths[2], inside[..., None]) for paths in (intact, silenced)),
    )


@partial(jax.jit, static_argnames=("model",))
def _generate(
    key: Array,
    params: dict[str, Any],
    u: Array,
    stage: Array,
    lengths: Array,
    start: Start | None,
    z: Array | None,
    *,
    model: MRSDS,
) -> tuple[Array, Array, Array]:
    networks = model.networks_from(params)
    return _roll(key, model, networks, u, stage, lengths, start, z)


def _roll(
    key: Array,
    model: MRSDS,
    networks: Networks,
    u: Array,
    stage: Array,
    lengths: Array,
    start: Any,
    z: Array | None = None,
) -> tuple[Array, Array, Array]:
    """States, latents and expected signals, path by path; equal keys use equal random numbers."""
    kind = networks.initial.means.dtype
    batch = Batch(None, u.astype(kind), None, None, lengths, stage.astype(kind))
    switching = model.switching(networks, batch)
    if start is not None:
        start = (jnp.asarray(start[0], int), jnp.asarray(start[1], kind))
    if z is None:
        states, x = ancestral(switching, key, start)
    else:
        states, x = z, _given_states(key, switching, z, None if start is None else start[1])
    return states, x, networks.emissions.activity(x)


def _given_states(key: Array, switching: Switching, z: Array, first: Array | None) -> Float[Array, "path bin latent"]:
    """Latents of given states, by the programs with z substituted."""
    first_key, scan_key = random.split(key)
    path = jnp.swapaxes(z, 0, 1)

    def run(program: Any, program_key: Array, state: Array, *args: Any) -> Array:
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


@partial(jax.jit, static_argnames=("model", "guide", "draws", "filtered"))
def _starts(
    key: Array,
    batch: Batch,
    first: Array,
    *,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    draws: int,
    filtered: bool,
) -> tuple[Array, Array]:
    """Draws of (z, x) at bin ``first`` of each trial: (trial, draw) and (trial, draw, latent)."""
    x_key, z_key = random.split(key)
    if filtered:
        known = (jnp.arange(batch.y.shape[1]) <= first[:, None])[..., None]
        batch = batch._replace(
            y=jnp.where(known, batch.y, 0.0),
            u=jnp.where(known, batch.u, 0.0),
            observed=batch.observed & known,
            visible=batch.visible & known,
            lengths=jnp.minimum(batch.lengths, first + 1),
        )
    x = guide.sample_posterior(x_key, params, batch, sample_shape=(draws,))["x"]
    switching = model.switching(model.networks_from(params), batch)

    def at_first(drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        draw_key, path = drawn
        z = sample_path(draw_key, potentials(switching, path)).T
        every = jnp.arange(first.shape[0])
        here = jnp.minimum(first, path.shape[1] - 1)
        return z[every, here], path[every, here]

    z, x = lax.map(at_first, (random.split(z_key, draws), x))
    return jnp.moveaxis(z, 1, 0), jnp.moveaxis(x, 1, 0)


def _ahead(
    key: Array, batch: Batch, first: Array, starts: tuple[Array, Array], model: MRSDS, networks: Networks, horizon: int
) -> tuple[Array, Array, Array]:
    """Paths of every trial and draw from bin ``first`` on: (trial, draw, bin) states, latents; (trial, bin) signals."""
    index = first[:, None] + jnp.arange(horizon + 1)
    index = jnp.minimum(index, batch.y.shape[1] - 1)[..., None]
    trials, draws = starts[0].shape

    def repeated(values: Array) -> Array:
        return jnp.broadcast_to(values[:, None], (trials, draws, *values.shape[1:])).reshape(
            trials * draws, *values.shape[1:]
        )

    u, stage = (repeated(jnp.take_along_axis(a, index, axis=1)) for a in (batch.u, batch.stage))
    lengths = repeated(jnp.clip(batch.lengths - first, 1, horizon + 1))
    flat = tuple(a.reshape(trials * draws, *a.shape[2:]) for a in starts)
    z, x, y_mean = (
        a.reshape(trials, draws, *a.shape[1:]) for a in _roll(key, model, networks, u, stage, lengths, flat)
    )
    return z, x, y_mean.mean(1)


@partial(jax.jit, static_argnames=("model", "guide", "draws", "horizon", "filtered"))
def _expected(
    key: Array,
    batch: Batch,
    first: Array,
    *,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    draws: int,
    horizon: int,
    filtered: bool,
) -> Float[Array, "trial bin neuron"]:
    start_key, roll_key = random.split(key)
    starts = _starts(start_key, batch, first, params=params, model=model, guide=guide, draws=draws, filtered=filtered)
    return _ahead(roll_key, batch, first, starts, model, model.networks_from(params), horizon)[2]


@partial(jax.jit, static_argnames=("model", "guide", "draws", "horizon"))
def _pairs(
    key: Array,
    batch: Batch,
    first: Array,
    *,
    params: dict[str, Any],
    silent: Array,
    held: Array,
    model: MRSDS,
    guide: Any,
    draws: int,
    horizon: int,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    start_key, roll_key = random.split(key)
    networks = model.networks_from(params)
    kind = networks.initial.means.dtype
    starts = _starts(start_key, batch, first, params=params, model=model, guide=guide, draws=draws, filtered=False)

    def rolled(silenced: Array) -> tuple[Array, Array, Array]:
        dynamics: Any = SilencedDynamics(networks.dynamics, silenced, held.astype(kind))
        some = networks._replace(dynamics=dynamics)
        return _ahead(roll_key, batch, first, starts, model, some, horizon)

    # One program for both, so that they differ in nothing else, rounding included.
    both = lax.map(rolled, jnp.stack([jnp.zeros_like(silent), silent]).astype(kind))
    intact, silenced = (tuple(a[i] for a in both) for i in range(2))
    return intact, silenced


def _state_means(
    key: PRNGKeyArray, params: dict[str, Any], model: MRSDS, guide: Any, trials: Trials, draws: int
) -> Float[np.ndarray, "state target source latent"]:
    """Mean message of each state over the bins where it is active; zero for a state that no bin is in."""
    paths = posterior_paths(key, params, model, guide, trials, draws=draws)
    valid = valid_bins(trials.lengths, trials.num_bins)
    valid[:, 0] = False
    weight = np.where(valid[..., None], paths.z_prob, 0.0)
    means = []
    for state in range(model.num_states):
        told = np.nan_to_num(path_messages(params, model, trials, paths, state=state).values)
        total = np.einsum("nbt,nbtrsd->rsd", weight[..., state], told)
        means.append(total / max(weight[..., state].sum(), 1e-12))
    return np.stack(means)


def _silent(
    model: MRSDS, trials: Trials, region: int | str | None, message: tuple[int | str, int | str] | None
) -> Float[np.ndarray, "target source"]:
    """1 for each silenced message."""
    if (region is None) == (message is None):
        raise RunError("Name what falls silent: either region=NAME, or message=(SOURCE, TARGET), and not both.")
    targets = region_labels(model, trials)
    sources = targets + input_labels(model)

    def place(name: int | str, names: list[str], what: str) -> int:
        index = names.index(name) if isinstance(name, str) and name in names else name
        if isinstance(index, str) or not 0 <= index < len(names):
            raise RunError(f"{what}: found {name!r}; allowed: {names}, or 0 to {len(names) - 1}.")
        return index

    silent = np.zeros((len(targets), len(sources)))
    if message is not None:
        source, target = place(message[0], sources, "message source"), place(message[1], targets, "message target")
        silent[target, source] = 1.0
        if source == target:
            raise RunError(f"message: {message} is what the region does by itself; name two regions, or an input.")
    elif region is not None:
        source = place(region, targets, "region")
        silent[:, source] = 1.0
        silent[source, source] = 0.0
    if not silent.any():
        raise RunError(f"region: {region!r} sends no messages; the model has one region.")
    return silent


def _check_bin(bin: int, trials: Trials, name: str) -> None:
    last = int(trials.lengths.max()) - 1
    if not 0 <= bin <= last:
        raise RunError(f"{name}: found bin {bin}, the longest trial has bins 0 to {last}.")


def _masked(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, values, np.nan)
