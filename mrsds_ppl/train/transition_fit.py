"""The chain of states by expectation-maximisation, states and latents summed out.

    p(k | j)  <-  (n_jk + p(k | j)) / (n_j + 1),      n_jk = sum over trials of E( number of j -> k | y ),

with the program linearised around each trial's path; see :mod:`mrsds_ppl.statespace.gaussian_sum`. One transition of
the old law is counted for each state, so that one which is never entered keeps its row.

Joint training sets transitions by the bound, under which states are seen given a draw of the path. A short stay that
the path does not show is then no stay, and the fitted states last too long. Here the path is summed out.
"""

from collections.abc import Mapping
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mrsds_ppl.backend.trials_at_once import in_parts, over_parts, put_together
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import AnyArray
from mrsds_ppl.models.filtering import linearise_trials, shared_of, transitions_of_trials
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.statespace.linear_gaussian import TrialTerms


def has_transition_matrix(model: MRSDS) -> bool:
    """Whether the states are a Markov chain of their own: several, which neither latents nor inputs switch."""
    return model.num_states > 1 and not (model.options.xz or model.options.uz or model.options.sz)


def transition_matrix(params: Mapping[str, PyTree]) -> Float[np.ndarray, "from to"]:
    """p(z_t = to | z_{t-1} = from) of a model that has such a matrix."""
    return np.asarray(jax.nn.softmax(params["transitions$params"].bias, axis=-1))


def fit_transitions(
    params: dict[str, PyTree],
    model: MRSDS,
    data: Batch,
    x: Float[AnyArray, "trial bin latent"],
    *,
    num_rounds: int,
) -> dict[str, PyTree]:
    """Parameters with the transitions of the largest evidence; everything else stays.

    Args:
        params: values of the program's sites.
        model: the program, of which :func:`has_transition_matrix` is true.
        data: the trials.
        x: their paths, around which the program is linearised.
        num_rounds: rounds of expectation-maximisation; each leaves about a third of the way to its end.
    """
    networks, parts = model.networks_from(params), in_parts(data)
    shared = shared_of(networks)
    trials: TrialTerms = put_together(parts, over_parts(partial(linearise_trials, networks, model), parts, x))

    def counted(_: Batch, trials: TrialTerms) -> Float[Array, "trial from to"]:
        return transitions_of_trials(shared, trials).transitions

    for _ in range(num_rounds):
        matrix = transition_matrix(params)
        moves = jnp.broadcast_to(np.log(matrix), trials.log_transition.shape)
        trials = trials._replace(log_transition=moves)
        counts = np.asarray(put_together(parts, over_parts(counted, parts, trials))).sum(0) + matrix
        bias = np.log(counts / counts.sum(1, keepdims=True) + 1e-12)
        moved = eqx.tree_at(lambda t: t.bias, params["transitions$params"], jnp.asarray(bias))
        params = {**params, "transitions$params": moved}
    return params
