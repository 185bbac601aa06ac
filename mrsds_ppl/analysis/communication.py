"""What regions tell each other: messages along posterior paths, their norms, and who speaks to whom in each state.

The message of bin t goes from t-1 to t; the first bin has none, and zero stands there. With the local change
m^{rr}(x) - x on the diagonal, and x_{t-1} known,

    x_{t-1}^r + sum_s message_t[r, s] = f_k^r(x_{t-1}, u_t)        in state k,
                                      = sum_k p(z_t = k | x) f_k^r(x_{t-1}, u_t)     averaged over states.

Additive messages are known up to a constant for each state, target and source: a constant that one source gains and
another loses changes no sum. Conditional messages, differences to the silenced source, have no such freedom.
Source: Karniol-Tambour et al., ICLR 2024, section 3.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.flow import check_state
from mrsds_ppl.analysis.posterior_paths import PosteriorPaths, posterior_paths
from mrsds_ppl.analysis.recovery.alignment import valid_bins
from mrsds_ppl.analysis.weights import Change, WeightPosterior
from mrsds_ppl.backend.trials_at_once import over_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.dynamics import every_message
from mrsds_ppl.models.mrsds import MRSDS

_AXES = ("draw", "trial", "time", "target", "source", "latent")


def posterior_messages(
    key: PRNGKeyArray,
    fitted: FittedProgram,
    trials: Trials,
    *,
    draws: int = 20,
    state: int | None = None,
    weights: WeightPosterior | None = None,
) -> xr.DataArray:
    """Messages along draws from the posterior, (draw, trial, time, target, source, latent of the target).

    Args:
        key: random key.
        fitted: program, guide and parameters.
        trials: the trials.
        draws: number of draws of x.
        state: messages of this state in every bin; ``None`` averages them over p(z_t | x) of the same draw.
        weights: posterior of the networks' weights, of which each draw has its own; None holds them as fitted.

    Returns:
        messages in latent units a bin, NaN in padded bins and where a region has fewer latents than the widest.

    Raises:
        RunError: there is no such state.
    """
    if state is not None:
        check_state(fitted.model, state)
    paths = posterior_paths(key, fitted, trials, draws=draws)
    changes = None if weights is None else weights.draws(random.fold_in(key, 1), draws)
    return path_messages(fitted, trials, paths, state=state, changes=changes)


def path_messages(
    fitted: FittedProgram,
    trials: Trials,
    paths: PosteriorPaths,
    *,
    state: int | None = None,
    changes: Change | None = None,
) -> xr.DataArray:
    """Messages along given paths: those of :func:`posterior_paths`, of a finished posterior, or the true ones.

    Arguments and result are those of :func:`posterior_messages`; ``changes`` are those of the weights in each draw, of
    which messages are linear.
    """
    model = fitted.model
    if state is not None:
        check_state(model, state)
    weight = paths.z_prob
    if state is not None:
        weight = np.broadcast_to(np.eye(model.num_states, dtype=weight.dtype)[state], weight.shape)
    by_trial = (np.moveaxis(a, 0, 1) for a in (paths.x, weight))
    told = over_trials(
        lambda _, x, w, u: _messages_of(fitted, x, w, u, changes),
        None,
        *by_trial,
        np.asarray(trials.batch().u, paths.x.dtype),
    )
    values = np.moveaxis(told, 1, 0)
    values = np.where(valid_bins(trials.lengths, trials.num_bins)[:, :, None, None, None], values, np.nan)
    sizes = np.array(model.latent_sizes)
    inside = np.arange(values.shape[-1]) < sizes[:, None]
    values = np.where(inside[:, None], values, np.nan)
    targets = region_labels(model, trials)
    coords = {
        "draw": np.arange(values.shape[0]),
        "trial": trials.ids,
        "time": ("time", np.arange(trials.num_bins) * trials.bin_width, {"units": "s"}),
        "target": targets,
        "source": targets + input_labels(model, trials),
        "latent": np.arange(values.shape[-1]),
    }
    attrs = {"long_name": "message from bin t-1 to t", "units": "latent units per bin"}
    return xr.DataArray(values, coords, _AXES, name="messages", attrs=attrs)


def message_norms(messages: xr.DataArray) -> xr.DataArray:
    """Norm of each message over the latents that its target has; NaN in padded bins.

    Args:
        messages: of :func:`posterior_messages`.
    """
    return (messages**2).sum("latent", min_count=1) ** 0.5


def interval_of(draws: xr.DataArray, level: float) -> xr.Dataset:
    """``mean``, ``low`` and ``high`` over draws; NaN where a draw is.

    Args:
        draws: values with an axis ``draw``.
        level: probability between low and high, with equal tails.

    Raises:
        RunError: ``level`` is not between 0 and 1.
    """
    check_level(level)
    # Quantiles that skip NaN warn of padded bins, which are NaN in every draw.
    low, high = (draws.quantile(0.5 + way * level / 2, "draw", skipna=False) for way in (-1, 1))
    ends = {"low": low.drop_vars("quantile"), "high": high.drop_vars("quantile")}
    return xr.Dataset({"mean": draws.mean("draw", skipna=False), **ends}, attrs={"level": level})


def check_level(level: float) -> None:
    """Raises RunError unless ``level`` is a probability between 0 and 1."""
    if not 0 < level < 1:
        raise RunError(f"level: found {level}, need a probability between 0 and 1, such as 0.9.")


def communication_matrix(
    messages: xr.DataArray,
    z_prob: np.ndarray | Array | xr.DataArray | None = None,
    labels: Sequence[object] | np.ndarray | None = None,
) -> xr.DataArray:
    """Mean norm of each message over valid bins from the second on: (draw, [state], [condition], target, source).

        matrix[k, r, s] = sum_bt p(z_bt = k) |message_bt[r, s]| / sum_bt p(z_bt = k)

    Args:
        messages: of :func:`posterior_messages`, averaged over states; or those of each state joined along an axis
            ``state``, which makes what :func:`state_communication` computes in less memory.
        z_prob: state probabilities ([draw], trial, time, state), to weight bins by; adds the axis ``state``.
        labels: condition of each trial, empty where it has none; adds the axis ``condition``.

    Raises:
        RunError: weights or labels do not fit the messages.
    """
    norm = message_norms(messages)
    valid = norm.notnull().any([d for d in norm.dims if d not in ("trial", "time")])
    weight = (valid & xr.DataArray(np.arange(norm.sizes["time"]) > 0, dims="time")).astype(float)
    if z_prob is not None:
        prob = np.asarray(z_prob)
        dims = ("draw", "trial", "time", "state")[-prob.ndim :]
        expected = tuple(norm.sizes[d] for d in dims[:-1])
        if prob.ndim not in (3, 4) or prob.shape[:-1] != expected:
            raise RunError(
                f"z_prob: found shape {prob.shape}, need ([draw], trial, time, state) with sizes {expected}."
            )
        weight = xr.DataArray(np.where(np.isnan(prob), 0.0, prob), dims=dims) * weight
    factors = [norm.fillna(0.0), weight]
    if labels is not None:
        names, members = _conditions(labels, norm.sizes["trial"])
        factors.append(xr.DataArray(members.astype(float), {"condition": names}, ("condition", "trial")))
    total, count = (xr.dot(*some, dim=("trial", "time")) for some in (factors, factors[1:]))
    matrix = (total / count.where(count > 0)).rename("communication")
    return matrix.transpose("draw", "state", "condition", "target", "source", missing_dims="ignore")


def state_communication(
    key: PRNGKeyArray,
    fitted: FittedProgram,
    trials: Trials,
    *,
    draws: int = 20,
    labels: Sequence[Any] | np.ndarray | None = None,
    weights: WeightPosterior | None = None,
) -> xr.DataArray:
    """Mean norm of the messages of each state in the bins where it is active: (draw, state, [condition], ...).

        matrix[k, r, s] = sum_bt p(z_bt = k | x) |m_k^{rs}|_bt / sum_bt p(z_bt = k | x)

    NaN for a state that no bin is in.

    Args:
        key: random key; the draws are those of :func:`posterior_messages`.
        fitted: program, guide and parameters.
        trials: the trials.
        draws: number of draws of x.
        labels: condition of each trial; adds the axis ``condition``.
        weights: posterior of the networks' weights, of which each draw has its own; None holds them as fitted.

    Raises:
        RunError: there is not one label a trial.
    """
    grouped = None if labels is None else _conditions(labels, trials.num_trials)
    paths = posterior_paths(key, fitted, trials, draws=draws)
    changes = None if weights is None else weights.draws(random.fold_in(key, 1), draws)
    total, count = over_trials(
        lambda _, x, z, u, n: _norm_sums(fitted, x, z, u, n, changes),
        None,
        *(np.moveaxis(a, 0, 1) for a in paths),
        np.asarray(trials.batch().u, paths.x.dtype),
        trials.lengths,
    )
    members = np.ones((1, trials.num_trials), bool) if grouped is None else grouped[1]
    sums, counts = (np.einsum("cb,bn...->n...c", members, a.astype(float)) for a in (total, count))
    occupied = counts[:, :, None, None]
    matrix = np.divide(sums, occupied, out=np.full_like(sums, np.nan), where=occupied > 0)
    targets = region_labels(fitted.model, trials)
    coords: dict[str, Any] = {"target": targets, "source": targets + input_labels(fitted.model, trials)}
    if grouped is not None:
        coords["condition"] = grouped[0]
    found = xr.DataArray(matrix, coords, ("draw", "state", "target", "source", "condition"), name="communication")
    found = found.transpose("draw", "state", "condition", "target", "source")
    return found if grouped is not None else found.isel(condition=0)


def region_labels(model: MRSDS, trials: Trials) -> list[str]:
    """Name of each region that has latents of its own; one for all where the latent is pooled."""
    names = trials.region_names
    return names if len(model.latent_sizes) == len(names) else ["+".join(names)]


def _by_draw(
    function: Callable[..., Any], x: Float[Array, "trial draw bin latent"], z_prob: Array, *more: Change | None
) -> Array | tuple[Array, ...]:
    """Results of each draw, whose messages in all states need not be in memory at once, trials first."""
    found = lax.map(lambda given: function(*given), (jnp.moveaxis(x, 1, 0), jnp.moveaxis(z_prob, 1, 0), *more))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), found)


def _along(fitted: FittedProgram, x: Float[Array, "trial bin latent"], u: Array, change: Change | None = None) -> Array:
    """(state, target, source, trial, bin, latent) of bins 2 on, with the weights changed."""
    used = fitted.model.dynamics_inputs(u)
    count = x.shape[0] * (x.shape[1] - 1)
    rows = [a.reshape(count, a.shape[-1]) for a in (x[:, :-1], used[:, 1:])]
    dynamics = fitted.networks.dynamics
    told = every_message(dynamics, *rows) if change is None else change.messages(dynamics, *rows)
    return told.reshape(*told.shape[:3], x.shape[0], x.shape[1] - 1, told.shape[-1])


@jax.jit
def _messages_of(fitted: FittedProgram, x: Array, weight: Array, u: Array, changes: Change | None) -> Any:
    """(trial, draw, bin, target, source, latent); zero in the first bin."""

    def one(path: Array, prob: Array, change: Change | None) -> Array:
        mean = jnp.einsum("btk,krsbtd->btrsd", prob[:, 1:], _along(fitted, path, u, change))
        return jnp.concatenate([jnp.zeros_like(mean[:, :1]), mean], axis=1)

    return _by_draw(one, x, weight, changes)


@jax.jit
def _norm_sums(fitted: FittedProgram, x: Array, z_prob: Array, u: Array, lengths: Array, changes: Change | None) -> Any:
    """Sums over the bins of each trial: (trial, draw, state, target, source) of norms, (trial, draw, state) weights."""
    valid = jnp.arange(1, x.shape[2]) < lengths[:, None]

    def one(path: Array, prob: Array, change: Change | None) -> tuple[Array, Array]:
        weight = jnp.where(valid[..., None], prob[:, 1:], 0.0)
        norm = jnp.sqrt((_along(fitted, path, u, change) ** 2).sum(-1))
        return jnp.einsum("btk,krsbt->bkrs", weight, jnp.where(valid, norm, 0.0)), weight.sum(1)

    return _by_draw(one, x, z_prob, changes)


def input_labels(model: MRSDS, trials: Trials) -> list[str]:
    """Name of each source that is an input; ``inputs`` where one network takes them together."""
    if model.networks.dynamics.inputs is None:
        return []
    if model.options.dynamics.input_func_type == "together":
        return ["inputs"]
    return trials.input_names


def _conditions(labels: Sequence[Any] | np.ndarray, num_trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Different labels in order, and (condition, trial): which trials have them."""
    given = np.asarray(labels)
    if given.shape != (num_trials,):
        raise RunError(f"labels: found shape {given.shape}, need one label for each of {num_trials} trials.")
    names = np.unique(given)
    names = names[names != ""] if names.dtype.kind == "U" else names
    return names, given == names[:, None]
