"""Which messages are there, and the held-out evidence that each of them is worth.

    evidence[k, r, s] = mean over test trials of  log p(y | all of f)  -  log p(y | f without m_k^{rs}, others settled)

states and latents summed out; :mod:`mrsds_ppl.analysis.edges.without` says what settles and how. The last state,
``all``, is without the message in every state at once. A message that is not there is noise of its fit: without it
held-out trials lose nothing, or gain. Test trials are few, so whether a message is there is asked of the training
trials, at the dynamics without it (:mod:`mrsds_ppl.analysis.edges.score_test`). They also ask for what mends an error
of the fit, and that test trials do not: so these have to lose by Student's t-test over trials, too, and the p-value is
the larger of the two (Berger, Technometrics 1982, intersection-union tests). The false discovery rate is controlled
over all edges of single states, and over those of ``all``: Benjamini and Hochberg, JRSS B 1995; it holds where the
edges, whose trials are the same, depend on each other positively.
"""

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import input_labels, region_labels
from mrsds_ppl.analysis.edges.losses import held_out, losses, removals
from mrsds_ppl.analysis.edges.score_test import edges
from mrsds_ppl.analysis.weights import WeightPosterior
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, RunError
from mrsds_ppl.models.dynamics import Rows
from mrsds_ppl.models.mrsds import MRSDS

# Signs of six trials make p = 1/32 at least (all signs turned change nothing), fewer never less than 0.05.
_FEWEST = 6
# Steps of training trials that messages are read on; more would only take longer, as they have some tens of directions.
_STEPS = 3000
# Nats: what trials lose by less than this, they do not lose.
_LEAST = 1e-6
_AXES = ("state", "target", "source")


def evidence_lost(
    fitted: FittedProgram,
    trials: Trials,
    steps: Rows,
    known: WeightPosterior,
    p_values: Float[np.ndarray, "state_or_all target source"],
    *,
    rate: float = 0.1,
) -> xr.Dataset:
    """Which directed messages are there, and the evidence that each is worth in some trials.

    Args:
        fitted: program and parameters.
        trials: trials that were not fitted; in others each message explains some noise.
        steps: of the trials that were, see :func:`training_steps`.
        known: what these tell of the weights.
        p_values: of each message in training trials, see :func:`mrsds_ppl.analysis.edges.score_test`.
        rate: false discovery rate at which an edge is present.

    Returns:
        ``evidence`` in nats a trial, its standard ``error`` (NaN for one trial), ``p_value``, ``q_value`` and
        ``present``, each of (state, target, source); nothing is said of a region's own change.
    """
    num_states, targets = fitted.model.num_states, region_labels(fitted.model, trials)
    sources, number = targets + input_labels(fitted.model, trials), trials.num_trials
    shape = (num_states + 1, len(targets), len(sources))
    tables = {name: np.full(shape, np.nan) for name in ("evidence", "error", "p_value", "q_value")}
    places = list(edges(shape))
    place = tuple(np.array(places).T)
    lost = losses(held_out(fitted, known, trials, steps), removals(known, places))
    tables["evidence"][place] = lost.mean(1)
    # One trial cannot tell.
    of_trials = np.ones(len(lost))
    if number > 1:
        tables["error"][place] = lost.std(1, ddof=1) / np.sqrt(number)
        of_trials = stats.t.sf(tables["evidence"][place] / np.maximum(tables["error"][place], _LEAST), number - 1)
    tables["p_value"][place] = np.maximum(p_values[place], of_trials)
    for family in (slice(0, num_states), slice(num_states, None)):
        p = tables["p_value"][family]
        asked = np.isfinite(p)
        tables["q_value"][family][asked] = stats.false_discovery_control(p[asked])
    coords = {"state": [*map(str, range(num_states)), "all"], "target": targets, "source": sources}
    found = xr.Dataset({name: (_AXES, values) for name, values in tables.items()}, coords)
    found["present"] = found["q_value"] <= rate
    found.attrs |= {"false_discovery_rate": rate, "trials": number}
    found["evidence"].attrs["units"] = "nats per trial"
    return found


def check_edges(model: MRSDS, training: Trials) -> None:
    """Refuse what edges cannot be asked of.

    Raises:
        DataError: there are fewer than six training trials.
        RunError: the program has no messages between regions or from inputs.
    """
    if len(model.latent_sizes) == 1 and not input_labels(model, training):
        raise RunError("edges: one region without inputs gets no messages but its own; there is nothing to ask for.")
    if training.num_trials < _FEWEST:
        raise DataError(
            f"edges: found {training.num_trials} training trials, need at least {_FEWEST}, over which a message is "
            "asked for. Add trials, or keep fewer for tests (fit(..., test=0.1))."
        )


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
