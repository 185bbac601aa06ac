"""The posterior of trials under fitted parameters: latents, states, reconstructions, messages, likelihoods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.special import logsumexp

from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.inference.chain import smooth
from mrsds_ppl.inference.elbo import log_weights
from mrsds_ppl.inference.markov import potentials
from mrsds_ppl.models.mrsds import MRSDS, Networks

_TRIALS_AT_ONCE = 32
_PREDICTIVE_DRAWS = 20
_WEIGHTS_PER_DRAW = 4


@dataclass(frozen=True)
class PosteriorSet:
    """Posterior of the trials of one split; numpy arrays, meaningless in padded bins.

    ``z_prob`` is p(z_t | x, u) averaged over draws of x, ``z_logprob`` its logarithm. ``y_mean`` is the expected signal
    given y, ``y_next`` the one generated one bin ahead from the latents of the bin before (the first bin has none and
    repeats y_mean). ``messages`` of bin t go from t-1 to t, averaged over states; the local one is m^{rr}(x) - x.
    ``log_likelihood`` is the importance-weighted estimate of log p(y) in nats, ``elbo`` the plain bound.
    """

    trial_ids: Int[np.ndarray, " trial"]
    lengths: Int[np.ndarray, " trial"]
    x_mean: Float[np.ndarray, "trial time latent"]
    x_draws: Float[np.ndarray, "draw trial time latent"]
    z_prob: Float[np.ndarray, "trial time state"]
    z_prob_draws: Float[np.ndarray, "draw trial time state"]
    z_logprob: Float[np.ndarray, "trial time state"]
    y_mean: Float[np.ndarray, "trial time neuron"]
    y_next: Float[np.ndarray, "trial time neuron"]
    messages: Float[np.ndarray, "trial time target source_input latent"]
    norms: Float[np.ndarray, "trial time target source_input"]
    log_likelihood: Float[np.ndarray, " trial"]
    elbo: Float[np.ndarray, " trial"]
    pareto_k: Float[np.ndarray, " trial"]
    y_draws: np.ndarray | None
    log_likelihood_draws: Float[np.ndarray, "draw trial"] | None


class Reconstruction(NamedTuple):
    """Expected signals given the posterior, and one bin ahead of it."""

    y_mean: Float[np.ndarray, "trial time neuron"]
    y_next: Float[np.ndarray, "trial time neuron"]


def reconstruct(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    trials: Trials,
    *,
    hidden_neurons: Any = None,
    draws: int = 20,
) -> Reconstruction:
    """Expected signals of all neurons, of which an encoder sees all but ``hidden_neurons`` (co-smoothing).

    Args:
        key: random key.
        params, model, guide: the fit.
        trials: trials to reconstruct.
        hidden_neurons: indices of neurons hidden from the encoder.
        draws: draws of x that expectations are taken over.
    """

    def of(key: PRNGKeyArray, batch: Batch) -> tuple[Array, Array]:
        x = guide.sample_posterior(key, params, batch, sample_shape=(draws,))["x"]
        networks = model.networks_from(params)
        y_mean = _average(networks.emissions.activity, x)
        return y_mean, _ahead(networks, model, batch, x, y_mean)

    return Reconstruction(*_over_trials(of, key, trials.batch(hidden_neurons)))


def infer(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    guide: Any,
    trials: Trials,
    *,
    draws: int,
    predictive: bool = True,
) -> PosteriorSet:
    """Everything that is written of a split.

    Args:
        key: random key.
        params, model, guide: the fit.
        trials: trials of the split.
        draws: draws of x.
        predictive: draw signals and per-draw likelihoods as well.
    """

    def of(key: PRNGKeyArray, batch: Batch) -> dict[str, Array]:
        x_key, y_key = random.split(key)
        networks = model.networks_from(params)
        x = guide.sample_posterior(x_key, params, batch, sample_shape=(draws,))["x"]
        mean = guide.median(params, batch)["x"]
        switching = model.switching(networks, batch)
        z = lax.map(lambda path: jnp.transpose(smooth(potentials(switching, path)).marginals, (2, 0, 1)), x)
        y_mean = _average(networks.emissions.activity, x)
        found = {
            "x_mean": mean,
            "x_draws": x,
            "z_prob": z.mean(0),
            "z_prob_draws": z,
            "y_mean": y_mean,
            "y_next": _ahead(networks, model, batch, x, y_mean),
            "messages": _messages(networks, model, batch, mean, z.mean(0)),
        }
        if predictive:
            chosen = x[np.linspace(0, draws, min(4, draws), endpoint=False, dtype=int)[:, None]
                       + np.arange(max(1, min(_PREDICTIVE_DRAWS, draws) // 4))]
            chosen = chosen.reshape(-1, *x.shape[1:])
            keys = random.split(y_key, chosen.shape[0])
            everywhere = jnp.ones_like(batch.observed)
            found["y_draws"] = lax.map(
                lambda kx: networks.emissions.law(kx[1], everywhere).sample(kx[0]), (keys, chosen)
            )
        return found

    samples = draws * _WEIGHTS_PER_DRAW if predictive else draws

    def weights_of(key: PRNGKeyArray, batch: Batch) -> Array:
        return log_weights(key, params, model, guide, batch, num_samples=samples)

    infer_key, weight_key = random.split(key)
    found = _over_trials(of, infer_key, trials.batch(), {"x_draws": 1, "z_prob_draws": 1, "y_draws": 1})
    weights = _over_trials(weights_of, weight_key, trials.batch(), 1).astype(float)
    by_draw = logsumexp(weights.reshape(draws, -1, weights.shape[1]), axis=1) - np.log(samples // draws)
    return PosteriorSet(
        trial_ids=trials.ids,
        lengths=trials.lengths,
        z_logprob=np.log(np.maximum(found["z_prob"], 1e-30)),
        norms=np.linalg.norm(found["messages"], axis=-1),
        log_likelihood=logsumexp(weights, axis=0) - np.log(samples),
        elbo=weights.mean(0),
        pareto_k=pareto_k(weights),
        y_draws=found.pop("y_draws", None),
        log_likelihood_draws=by_draw if predictive else None,
        **found,
    )


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

            return np.asarray(array_stats.psislw(weights.T, axis=-1)[1])
        except ImportError:
            import arviz

            return np.asarray(arviz.psislw(weights.T)[1])


def _average(activity: Callable[[Array], Array], x: Float[Array, "draw trial time latent"]) -> Array:
    total, _ = lax.scan(lambda total, path: (total + activity(path), None), jnp.zeros_like(activity(x[0])), x)
    return total / x.shape[0]


def _ahead(networks: Networks, model: MRSDS, batch: Batch, x: Array, y_mean: Array) -> Array:
    """E y_t of one step of the model from draws of x_{t-1}, with z_{t-1} as inferred from the same draw."""
    switching = model.switching(networks, batch)

    def one(path: Array) -> Array:
        chain = potentials(switching, path)
        pairs = jnp.exp(chain.transition) * smooth(chain).marginals[:-1, :, None]
        next_state = jnp.transpose(pairs.sum(1), (1, 2, 0))
        u = batch.u if model.options.ux else batch.u[..., :0]
        means = networks.dynamics.means(path[:, :-1], u[:, 1:])
        return networks.emissions.activity(jnp.einsum("kbt,kbtd->btd", next_state, means))

    later, _ = lax.scan(lambda total, path: (total + one(path), None), jnp.zeros_like(y_mean[:, 1:]), x)
    return jnp.concatenate([y_mean[:, :1], later / x.shape[0]], axis=1)


def _messages(networks: Networks, model: MRSDS, batch: Batch, x: Array, z_prob: Array) -> Array:
    """(trial, time, target, source + input, latent), averaged over the state posterior; zero in the first bin."""
    u = batch.u if model.options.ux else batch.u[..., :0]
    trials, bins = x.shape[0], x.shape[1] - 1
    rows = trials * bins
    found = networks.dynamics.messages(x[:, :-1].reshape(rows, x.shape[-1]), u[:, 1:].reshape(rows, u.shape[-1]))
    weight = jnp.moveaxis(z_prob[:, 1:].reshape(rows, -1), -1, 0)
    before = networks.dynamics.by_region(x[:, :-1].reshape(rows, x.shape[-1]))
    regions = before.shape[0]
    same = np.eye(regions, dtype=bool)[:, :, None, None]
    change = jnp.where(same, (found.local - before)[:, :, None], found.cross)
    every = jnp.concatenate([change, found.inputs], axis=2)
    mean = jnp.einsum("kn,krsnd->nrsd", weight, every).reshape(trials, bins, regions, -1, before.shape[-1])
    return jnp.concatenate([jnp.zeros_like(mean[:, :1]), mean], axis=1)


def _over_trials(
    function: Callable[[PRNGKeyArray, Batch], Any], key: PRNGKeyArray, batch: Batch, trial_axis: Any = 0
) -> Any:
    """Apply a compiled function to a few trials at a time, all calls of one shape, and put the results together.

    ``trial_axis``: where the trials stand in the results, one number or one by name (0 for names left out).
    """
    num_trials = len(batch.lengths)
    size = min(_TRIALS_AT_ONCE, num_trials)
    compiled = jax.jit(function)
    parts = []
    for number, first in enumerate(range(0, num_trials, size)):
        # The last call repeats trials to keep its shape; what is repeated is cut off.
        index = np.minimum(np.arange(first, first + size), num_trials - 1)
        result = jax.device_get(compiled(random.fold_in(key, number), Batch(*(leaf[index] for leaf in batch))))
        parts.append((result, min(size, num_trials - first)))

    def joined(pieces: list[np.ndarray], axis: int) -> np.ndarray:
        kept = [p.take(np.arange(n), axis=axis) for p, (_, n) in zip(pieces, parts, strict=True)]
        return np.concatenate(kept, axis=axis)

    first_result = parts[0][0]
    if isinstance(first_result, dict):
        axes = trial_axis if isinstance(trial_axis, dict) else {}
        return {name: joined([p[name] for p, _ in parts], axes.get(name, 0)) for name in first_result}
    if isinstance(first_result, tuple):
        return tuple(joined([p[i] for p, _ in parts], 0) for i in range(len(first_result)))
    return joined([p for p, _ in parts], trial_axis)
