"""The posterior of trials under fitted parameters: latents, states, reconstructions, messages, likelihoods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped
from scipy.special import logsumexp

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.posterior_paths import posterior_draws
from mrsds_ppl.backend.sharding import trials_first
from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import over_rounds
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.dynamics import every_message
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.ppl.markov import Evaluated, potentials
from mrsds_ppl.statespace.chain import smooth

_DRAWS_AT_ONCE = 20
_PREDICTIVE_DRAWS = 20
_WEIGHTS_PER_DRAW = 4


@dataclass(frozen=True)
class PosteriorSet:
    """Posterior of the trials of one split; numpy arrays, meaningless in padded bins.

    ``z_prob`` is p(z_t | y, u) with the latents summed out, ``z_logprob`` its logarithm; ``z_prob_draws`` is
    p(z_t | x, u) of each draw of x, which has states of its own. ``given_draws`` says in which trials ``z_prob`` is the
    mean of ``z_prob_draws`` instead, as a smoothed path was not finite. ``y_mean`` is the expected signal given y,
    ``y_next`` the one generated one bin ahead from the latents of the bin before (the first bin has none and repeats
    y_mean). ``messages`` of bin t go from t-1 to t, averaged over states; the local one is m^{rr}(x) - x.
    ``log_likelihood`` is the importance-weighted estimate of log p(y) in nats, ``elbo`` the plain bound. What a file of
    a run does not hold is None in a set that was read from it.
    """

    trial_ids: Shaped[np.ndarray, " trial"]
    lengths: Int[np.ndarray, " trial"]
    x_mean: Float[np.ndarray, "trial time latent"]
    x_draws: Float[np.ndarray, "draw trial time latent"]
    z_prob: Float[np.ndarray, "trial time state"]
    z_prob_draws: Float[np.ndarray, "draw trial time state"] | None
    z_logprob: Float[np.ndarray, "trial time state"]
    y_mean: Float[np.ndarray, "trial time neuron"]
    y_next: Float[np.ndarray, "trial time neuron"] | None
    messages: Float[np.ndarray, "trial time target source_input target_latent"]
    norms: Float[np.ndarray, "trial time target source_input"]
    log_likelihood: Float[np.ndarray, " trial"]
    elbo: Float[np.ndarray, " trial"]
    pareto_k: Float[np.ndarray, " trial"]
    y_draws: np.ndarray | None
    log_likelihood_draws: Float[np.ndarray, "draw trial"] | None
    given_draws: Bool[np.ndarray, " trial"] | None = None


class Reconstruction(NamedTuple):
    """Expected signals given the posterior, and one bin ahead of it."""

    y_mean: Float[np.ndarray, "trial time neuron"]
    y_next: Float[np.ndarray, "trial time neuron"]


class PosteriorSampler:
    """Draws from the posterior of any trials, a few trials and draws at a time, by programs compiled once.

    Args:
        fitted: program, guide and parameters.
    """

    def __init__(self, fitted: FittedProgram) -> None:
        self.fitted = fitted

    def infer(self, key: PRNGKeyArray, trials: Trials, *, draws: int, predictive: bool = True) -> PosteriorSet:
        """Everything that is written of a split.

        Args:
            key: random key.
            trials: trials of the split.
            draws: draws of x.
            predictive: give draws of signals and likelihoods by draw as well.
        """
        draw_key, weight_key = random.split(key)
        batch = trials.batch()
        found = self._draws(draw_key, self.fitted, batch, draws)
        rounds = -(-draws // _DRAWS_AT_ONCE) * (_WEIGHTS_PER_DRAW if predictive else 1)
        weights = self._in_rounds(_weighed, weight_key, self.fitted, batch, rounds)
        weights = np.moveaxis(weights, 1, 2).reshape(-1, len(batch.lengths)).astype(float)
        by_draw = y_draws = None
        if predictive:
            y_draws = self._predicted(random.fold_in(key, 2), found["x_draws"], batch.session)
            several = weights[: draws * _WEIGHTS_PER_DRAW].reshape(draws, _WEIGHTS_PER_DRAW, -1)
            by_draw = logsumexp(several, axis=1) - np.log(_WEIGHTS_PER_DRAW)
        return PosteriorSet(
            trial_ids=trials.ids,
            lengths=trials.lengths,
            z_logprob=np.log(np.maximum(found["z_prob"], 1e-30)),
            norms=np.linalg.norm(found["messages"], axis=-1),
            log_likelihood=logsumexp(weights, axis=0) - np.log(len(weights)),
            elbo=weights.mean(0),
            pareto_k=pareto_k(weights),
            y_draws=y_draws,
            log_likelihood_draws=by_draw,
            **found,
        )

    def reconstruct(
        self, key: PRNGKeyArray, trials: Trials, *, hidden_neurons: Int[np.ndarray, " hidden"] | None = None
    ) -> Reconstruction:
        """Expected signals of all neurons, inferred from all but ``hidden_neurons`` (co-smoothing).

        A guide without an encoder is fitted anew to trials with hidden neurons.
        """
        batch, fitted = trials.batch(hidden_neurons), self.fitted
        if hidden_neurons is not None and len(hidden_neurons):
            fitted = fitted.adapted(random.fold_in(key, 1), batch)
        found = self._draws(key, fitted, batch, _DRAWS_AT_ONCE)
        return Reconstruction(found["y_mean"], found["y_next"])

    def _draws(self, key: PRNGKeyArray, fitted: FittedProgram, batch: Batch, draws: int) -> dict[str, np.ndarray]:
        """Draws one after another, and expectations averaged over them."""
        rounds = -(-draws // _DRAWS_AT_ONCE)
        drawn = posterior_draws(key, fitted, batch, rounds * _DRAWS_AT_ONCE)
        read = [
            over_rounds(lambda _, *some: _read(fitted, *some), None, batch, drawn.mean, x, drawn.z_prob)
            for x in np.split(drawn.x, rounds, axis=1)
        ]
        found = {name: np.mean([one[name] for one in read], axis=0) for name in read[0] if name != "z_prob_draws"}
        by_draw = np.concatenate([one["z_prob_draws"] for one in read], axis=1)
        return found | {
            "x_mean": drawn.mean,
            "x_draws": np.moveaxis(drawn.x, 1, 0)[:draws],
            "z_prob_draws": np.moveaxis(by_draw, 1, 0)[:draws],
            "given_draws": np.isnan(drawn.z_prob).any((1, 2)),
        }

    def _predicted(
        self,
        key: PRNGKeyArray,
        x_draws: Float[np.ndarray, "draw trial time latent"],
        session: Int[np.ndarray, " trial"] | None,
    ) -> np.ndarray:
        """A draw of the signals for each of the first few draws of x: (draw, trial, time, neuron)."""
        kept = x_draws[:_PREDICTIVE_DRAWS]
        paths = kept.reshape(-1, *kept.shape[2:])
        session = None if session is None else np.tile(session, len(kept))
        activity = over_rounds(lambda _, *some: _active(self.fitted, *some), None, paths, session)
        # Drawn by numpy: JAX draws counts tens of times more slowly.
        rng = np.random.default_rng(np.asarray(random.key_data(key)))
        emissions = self.fitted.networks.emissions.of_trials(session)
        return emissions.draw(rng, activity).reshape(*kept.shape[:3], -1)

    @staticmethod
    def _in_rounds(
        function: Callable[..., Any],
        key: PRNGKeyArray,
        fitted: FittedProgram,
        batch: Batch,
        rounds: int,
    ) -> Any:
        """Results of every round, (round, trial, ...)."""
        found = over_rounds(lambda some_key, some: function(some_key, fitted, some), key, batch, rounds=rounds)
        return jax.tree.map(lambda leaf: leaf.reshape(rounds, -1, *leaf.shape[1:]), found)


@compiled
def _read(
    fitted: FittedProgram,
    batch: Batch,
    mean: Float[Array, "trial time latent"],
    x: Float[Array, "trial draw time latent"],
    z_prob: Float[Array, "trial time state"],
) -> dict[str, Array]:
    """Of some draws: p(z | x) of each, and expected signals and messages. Trials first, then draws."""
    model, networks = fitted.model, fitted.networks
    z, y_mean, y_next = _expected(networks, model, batch, jnp.swapaxes(x, 0, 1))
    z_prob = jnp.where(jnp.isnan(z_prob), z.mean(0), z_prob)
    return {
        "z_prob": z_prob,
        "z_prob_draws": jnp.moveaxis(z, 0, 1),
        "y_mean": y_mean,
        "y_next": y_next,
        "messages": _messages(networks, model, batch, mean, z_prob),
    }


@compiled
def _active(
    fitted: FittedProgram, x: Float[Array, "trial time latent"], session: Int[Array, " trial"] | None
) -> Float[Array, "trial time neuron"]:
    return fitted.networks.emissions.of_trials(session).activity(x)


@compiled
def _weighed(key: PRNGKeyArray, fitted: FittedProgram, batch: Batch) -> Float[Array, "trial sample"]:
    return fitted.log_weights(key, batch, _DRAWS_AT_ONCE).T


def pareto_k(weights: Float[np.ndarray, "sample trial"]) -> Float[np.ndarray, " trial"]:
    """Shape of the generalised Pareto tail of each trial's importance weights; above 0.7 they are not to be trusted.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", JMLR 2024; by ArviZ.
    """
    import warnings

    with warnings.catch_warnings():
        # ArviZ 0.23 announces its successor at import.
        warnings.simplefilter("ignore")
        try:
            from arviz_stats.base import array_stats
        except ImportError:
            import arviz

            return np.asarray(arviz.psislw(weights.T)[1])

    def one(some: Float[np.ndarray, " sample"]) -> float:
        try:
            # ArviZ 1 smooths the weights of a log likelihood to be left out, which are its negative.
            return float(array_stats.psislw(-some)[1])
        except ValueError:  # fewer than five draws in the tail, which version 0.23 calls infinite
            return np.inf

    return np.array([one(some) for some in weights.T])


def _expected(
    networks: Networks, model: MRSDS, batch: Batch, x: Float[Array, "draw trial time latent"]
) -> tuple[Array, Array, Array]:
    """p(z_t | x, u) of each draw, (draw, trial, time, state), and the expected signals, averaged over draws.

    The signals are E y_t given the paths, and E y_t of one step of the model from x_{t-1}, with z_{t-1} as inferred
    from the same draw; the first bin has no step and repeats the former.
    """
    switching, u = model.switching(networks, batch), jnp.swapaxes(model.dynamics_inputs(batch.u), 0, 1)
    emissions = networks.emissions.of_trials(batch.session)

    def one(total: tuple[Array, Array], path: Array) -> tuple[tuple[Array, Array], Array]:
        means = trials_first(networks.dynamics.means, jnp.swapaxes(path[:, :-1], 0, 1), u[1:])
        chain = potentials(switching, path, Evaluated(means))
        marginals = smooth(chain).marginals
        pairs = jnp.exp(chain.transition) * marginals[:-1, :, None]
        ahead = jnp.einsum("tkb,ktbd->btd", pairs.sum(1), means)
        found = emissions.activity(path), emissions.activity(ahead)
        return jax.tree.map(jnp.add, total, found), jnp.transpose(marginals, (2, 0, 1))

    zeros = jnp.zeros(batch.y.shape, x.dtype)
    (y_mean, later), z = lax.scan(one, (zeros, zeros[:, 1:]), x)
    y_mean, later = y_mean / x.shape[0], later / x.shape[0]
    return z, y_mean, jnp.concatenate([y_mean[:, :1], later], axis=1)


def _messages(networks: Networks, model: MRSDS, batch: Batch, x: Array, z_prob: Array) -> Array:
    """(trial, time, target, source + input, latent), averaged over the state posterior; zero in the first bin."""
    u = model.dynamics_inputs(batch.u)
    trials, bins = x.shape[0], x.shape[1] - 1
    rows = trials * bins
    every = every_message(networks.dynamics, x[:, :-1].reshape(rows, x.shape[-1]), u[:, 1:].reshape(rows, u.shape[-1]))
    weight = jnp.moveaxis(z_prob[:, 1:].reshape(rows, -1), -1, 0)
    mean = jnp.einsum("kn,krsnd->nrsd", weight, every)
    mean = mean.reshape(trials, bins, *mean.shape[1:])
    return jnp.concatenate([jnp.zeros_like(mean[:, :1]), mean], axis=1)
