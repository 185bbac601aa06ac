"""The held-out evidence that each message is worth: who speaks to whom, as far as trials that were not fitted say so.

    evidence[k, r, s] = mean over test trials of  log p(y | all of f)  -  log p(y | f without m_k^{rs}, others settled)

states and latents summed out; :mod:`mrsds_ppl.analysis.edges.without` says what settles and how. The last state,
``all``, is without the message in every state at once. A message that is not there is noise of its fit: without it
held-out trials lose nothing, or gain. The p-value is Wilcoxon's signed-rank test over trials, one-sided: its null is
that trials lose as often and as much as they gain, or less, and a few trials that lose very much do not decide it. The
false discovery rate is controlled over all edges of single states, and over those of ``all``: Benjamini and Hochberg,
JRSS B 1995; it holds where the edges, whose trials are the same, depend on each other positively.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy import stats

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import input_labels, region_labels
from mrsds_ppl.analysis.edges.without import Removed, without
from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import in_parts
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, RunError
from mrsds_ppl.models.dynamics import Rows
from mrsds_ppl.models.filtering import count_transitions, smooth_and_find_states, smooth_new_trials
from mrsds_ppl.models.linearised import with_dynamics
from mrsds_ppl.models.mrsds import MRSDS, Networks

# Five trials that all lose have p = 1/32, fewer never less than 0.05.
_FEWEST = 5
# Steps of training trials that others settle on; more would only take longer, as messages have some tens of directions.
_STEPS = 3000
_AXES = ("state", "target", "source")
_settled = compiled(without)


def evidence_lost(fitted: FittedProgram, trials: Trials, steps: Rows, *, rate: float = 0.1) -> xr.Dataset:
    """Evidence that each directed message is worth in some trials, and whether it is there.

    Args:
        fitted: program and parameters.
        trials: trials that were not fitted; in others each message explains some noise.
        steps: of the trials that were, see :func:`training_steps`.
        rate: false discovery rate at which an edge is present.

    Returns:
        ``evidence`` in nats a trial, its standard ``error``, ``p_value``, ``q_value`` and ``present``, each of
        (state, target, source); nothing is said of a region's own change.

    Raises:
        DataError: there are fewer than five trials.
        RunError: the program has no messages between regions or from inputs.
    """
    if trials.num_trials < _FEWEST:
        raise DataError(
            f"edges: found {trials.num_trials} trials, need at least {_FEWEST} that were not fitted: "
            "keep more for tests (fit(..., test=0.2)), or give others."
        )
    num_states, targets = fitted.model.num_states, region_labels(fitted.model, trials)
    sources = targets + input_labels(fitted.model)
    if len(sources) == 1:
        raise RunError("edges: one region without inputs gets no messages but its own; there is nothing to ask for.")
    lost = np.stack(list(_losses(fitted, trials, steps)))
    shape = (num_states + 1, len(targets), len(sources))
    tables = {name: np.full(shape, np.nan) for name in ("evidence", "error", "p_value", "q_value")}
    place = tuple(np.array(list(_edges(shape))).T)
    tables["evidence"][place] = lost.mean(1)
    tables["error"][place] = lost.std(1, ddof=1) / np.sqrt(lost.shape[1])
    tables["p_value"][place] = stats.wilcoxon(lost, axis=1, alternative="greater", zero_method="zsplit").pvalue
    for family in (slice(0, num_states), slice(num_states, None)):
        p = tables["p_value"][family]
        known = np.isfinite(p)
        tables["q_value"][family][known] = stats.false_discovery_control(p[known])
    coords = {"state": [*map(str, range(num_states)), "all"], "target": targets, "source": sources}
    found = xr.Dataset({name: (_AXES, values) for name, values in tables.items()}, coords)
    found["present"] = found["q_value"] <= rate
    found.attrs |= {"false_discovery_rate": rate, "trials": trials.num_trials}
    found["evidence"].attrs["units"] = "nats per trial"
    return found


def training_steps(
    model: MRSDS,
    training: Trials,
    x: Float[np.ndarray, "trial time latent"],
    z_prob: Float[np.ndarray, "trial time state"],
    *,
    seed: int = 0,
) -> Rows:
    """Some steps of the training trials, on which the other messages settle.

    Args:
        model: the program.
        training: the trials.
        x: a draw of their latents.
        z_prob: probabilities of their states.
        seed: of the choice.
    """
    u = np.asarray(model.dynamics_inputs(jnp.asarray(training.batch().u)))[:, 1:]
    inside = np.arange(1, x.shape[1]) < training.lengths[:, None]
    found = [values[inside] for values in (x[:, :-1], u, z_prob[:, 1:])]
    chosen = np.random.default_rng(seed).choice(len(found[0]), min(_STEPS, len(found[0])), replace=False)
    return Rows(*(jnp.asarray(values[chosen], x.dtype) for values in found))


def _edges(shape: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """State, target and source of each, all states last."""
    return ((k, r, s) for k, r, s in np.ndindex(*shape) if r != s)


def _losses(fitted: FittedProgram, trials: Trials, steps: Rows) -> Iterator[Float[np.ndarray, " trial"]]:
    """Evidence that each trial loses without each edge, in the order of :func:`_edges`."""
    model, networks, batch = fitted.model, fitted.networks, trials.batch()
    parts, begun = in_parts(batch), smooth_new_trials(fitted.params, model, batch)

    def evidence(networks: Networks) -> Float[np.ndarray, " trial"]:
        paths, _ = smooth_and_find_states(networks, model, parts, begun.moments.mean, begun.states)
        found = count_transitions(networks, model, parts, paths.mean)
        return np.asarray(found.log_evidence, float)

    num_states, regions = model.num_states, len(model.latent_sizes)
    sources = regions + len(input_labels(model))

    def remaining(gone: Bool[np.ndarray, "state target source"]) -> Float[np.ndarray, " trial"]:
        removed = Removed(jnp.asarray(gone[..., :regions]), jnp.asarray(gone[..., regions:]))
        return evidence(with_dynamics(networks, _settled(networks.dynamics, removed, steps)))

    none = np.zeros((num_states, regions, sources), bool)
    whole = remaining(none)
    for k, r, s in _edges((num_states + 1, *none.shape[1:])):
        gone = none.copy()
        gone[slice(None) if k == num_states else k, r, s] = True
        yield whole - remaining(gone)
