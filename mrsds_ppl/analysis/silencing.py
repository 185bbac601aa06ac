"""What would have followed, had a region fallen silent or one message not arrived."""

from functools import partial
from typing import Literal, NamedTuple, TypedDict, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import input_labels, path_messages, region_labels
from mrsds_ppl.analysis.posterior_paths import posterior_paths
from mrsds_ppl.analysis.recovery.alignment import valid_bins
from mrsds_ppl.analysis.rollouts import check_bin, masked, rolled_ahead, starts_of
from mrsds_ppl.backend.trials_at_once import over_trials
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.dynamics import Dynamics, every_message
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.models.protocols import StateNoise


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
    def noise(self) -> StateNoise:
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


class SilencingOptions(TypedDict, total=False):
    """Further arguments of :func:`silence`."""

    from_bin: int
    horizon: int | None
    draws: int
    hold: Literal["nothing", "mean"]


def silence(
    key: PRNGKeyArray,
    fitted: FittedProgram,
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
        fitted: program, guide and parameters.
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
    model = fitted.model
    silent = _silent(model, trials, region, message)
    check_bin(from_bin, trials, "from_bin")
    horizon = int(trials.lengths.max()) - 1 - from_bin if horizon is None else horizon
    if horizon < 1:
        raise RunError(f"horizon: found {horizon} bins after bin {from_bin}; need at least 1.")
    run_key, mean_key = random.split(key)
    width = max(model.latent_sizes)
    held = np.zeros((model.num_states, *silent.shape, width))
    if hold == "mean":
        held = _state_means(mean_key, fitted, trials, draws)
    some = partial(
        _pairs,
        fitted=fitted,
        silent=silent,
        held=held,
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
        *(masked(by_draw(paths[1]), inside[..., None]) for paths in (intact, silenced)),
        *(masked(paths[2], inside[..., None]) for paths in (intact, silenced)),
    )


@partial(jax.jit, static_argnames=("draws", "horizon"))
def _pairs(
    key: Array,
    batch: Batch,
    first: Array,
    *,
    fitted: FittedProgram,
    silent: Array,
    held: Array,
    draws: int,
    horizon: int,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    start_key, roll_key = random.split(key)
    networks = fitted.networks
    kind = networks.initial.means.dtype
    starts = starts_of(start_key, batch, first, fitted=fitted, draws=draws)

    def rolled(silenced: Array) -> tuple[Array, Array, Array]:
        # Rollouts ask of the dynamics only what SilencedDynamics has.
        dynamics = cast(Dynamics, SilencedDynamics(networks.dynamics, silenced, held.astype(kind)))
        some = networks._replace(dynamics=dynamics)
        return rolled_ahead(roll_key, batch, first, starts, fitted.model, some, horizon)

    # One program for both, so that they differ in nothing else, rounding included.
    both = lax.map(rolled, jnp.stack([jnp.zeros_like(silent), silent]).astype(kind))
    intact, silenced = (tuple(a[i] for a in both) for i in range(2))
    return intact, silenced


def _state_means(
    key: PRNGKeyArray, fitted: FittedProgram, trials: Trials, draws: int
) -> Float[np.ndarray, "state target source latent"]:
    """Mean message of each state over the bins where it is active; zero for a state that no bin is in."""
    paths = posterior_paths(key, fitted, trials, draws=draws)
    valid = valid_bins(trials.lengths, trials.num_bins)
    valid[:, 0] = False
    weight = np.where(valid[..., None], paths.z_prob, 0.0)
    means = []
    for state in range(fitted.model.num_states):
        told = np.nan_to_num(path_messages(fitted, trials, paths, state=state).values)
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
    sources = targets + input_labels(model, trials)

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
