"""How readily states follow each other, by expectation-maximisation, states and latents summed out.

    b_jk  <-  b_jk + log (n_jk + p_jk) / (n_j + 1) - log p_jk,      n_jk = sum over trials of E( number of j -> k | y ),

with b the offsets of the log odds, p_jk the mean of p(z_t = k | z_{t-1} = j, x, u) over the bins that are in state j,
and the program linearised around each trial's path; see :mod:`mrsds_ppl.statespace.gaussian_sum`. How latents, inputs
and stages move the odds stays as trained. One transition of the old law is counted for each state, so that one which is
never entered keeps its row. Where nothing moves the odds, a round is the update of a Markov chain, p_jk <- (n_jk +
p_jk) / (n_j + 1); elsewhere it is one of generalised iterative scaling (Darroch and Ratcliff 1972), which raises log
p(y) too, and ends where states follow each other as often as the law says.

Joint training sets transitions by the bound, under which states are seen given a draw of the path. A short stay that
the path does not show is then no stay, and the fitted states last too long. Here the path is summed out.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from scipy.special import log_softmax, logsumexp

from mrsds_ppl.backend.trials_at_once import in_parts, over_parts, put_together
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import AnyArray
from mrsds_ppl.models.filtering import linearise_trials, shared_of, states_of_trials, transitions_of_trials
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.statespace.linear_gaussian import TrialTerms, valid_bins

_SITE = "transitions$params"
# So that logarithms stay finite, and a state that no bin is in has the law of all bins.
_TINY = 1e-12


class FittedTransitions(NamedTuple):
    """Values of the program's sites, and the mean law over the bins of each state, before and after."""

    params: dict[str, PyTree]
    before: Float[np.ndarray, "from to"]
    after: Float[np.ndarray, "from to"]


def fit_transitions(
    params: dict[str, PyTree],
    model: MRSDS,
    data: Batch,
    x: Float[AnyArray, "trial bin latent"],
    *,
    num_rounds: int,
) -> FittedTransitions:
    """Parameters with the offsets of the transitions of the largest evidence; everything else stays.

    Args:
        params: values of the program's sites.
        model: the program, of several states.
        data: the trials.
        x: their paths, around which the program is linearised.
        num_rounds: rounds of expectation-maximisation; each leaves about a third of the way to its end.
    """
    networks, parts = model.networks_from(params), in_parts(data)
    shared = shared_of(networks)
    trials: TrialTerms = put_together(parts, over_parts(partial(linearise_trials, networks, model), parts, x))

    def probable(_: Batch, trials: TrialTerms) -> Float[Array, "trial bin state"]:
        return states_of_trials(shared, trials).probabilities

    def counted(_: Batch, trials: TrialTerms) -> Float[Array, "trial from to"]:
        return transitions_of_trials(shared, trials).transitions

    weight = np.asarray(put_together(parts, over_parts(probable, parts, trials)), float)[:, :-1] + _TINY
    inside = np.asarray(valid_bins(jnp.asarray(data.lengths), weight.shape[1] + 1))[:, 1:]
    weight = weight[inside] / weight[inside].sum(0)

    def law(moves: Float[np.ndarray, "trial pair from to"]) -> Float[np.ndarray, "from to"]:
        return np.einsum("nj,njk->jk", weight, np.exp(moves[inside]))

    moves = np.asarray(trials.log_transition, float)
    before = now = law(moves)
    bias = np.asarray(params[_SITE].bias, float)
    for _ in range(num_rounds):
        given = trials._replace(log_transition=jnp.asarray(moves, trials.log_transition.dtype))
        counts = np.asarray(put_together(parts, over_parts(counted, parts, given)), float).sum(0) + now
        shift = np.log(counts / counts.sum(1, keepdims=True) + _TINY) - np.log(now + _TINY)
        moves, bias = log_softmax(moves + shift, axis=-1), bias + shift
        now = law(moves)
    bias = bias - logsumexp(bias, axis=1, keepdims=True)
    moved = eqx.tree_at(lambda t: t.bias, params[_SITE], jnp.asarray(bias, params[_SITE].bias.dtype))
    return FittedTransitions({**params, _SITE: moved}, before, now)
