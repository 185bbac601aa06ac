"""The evidence lower bound with the discrete states summed exactly, and the importance-weighted one.

ELBO = E_q( log p(x, y) - log q(x) ),      p(x) = sum_z p(x, z)
IWAE_S = E log 1/S sum_s p(x_s, y) / q(x_s)   >= ELBO, rising to log p(y) with S
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray, Shaped
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer.elbo import ELBO
from numpyro.util import check_model_guide_match

from mrsds_ppl.errors import RunError
from mrsds_ppl.ppl.markov import Evaluated, summed_out

Key = PRNGKeyArray | Shaped[Array, "2"]
Program = Callable[..., Any]


class LogTerms(NamedTuple):
    """Log densities by site, not scaled: (trial,) for the sites of trials, scalar for global ones; and the scale.

    ``scale`` is the number of trials of the data set over that of the batch.
    """

    model: dict[str, Array]
    guide: dict[str, Array]
    scale: float | Array

    @property
    def log_weights(self) -> Float[Array, " trial"]:
        """log p(x, y) - log q(x) of each trial."""
        terms = [t for t in self.model.values() if t.ndim] + [-t for t in self.guide.values() if t.ndim]
        return jnp.sum(jnp.stack(terms), axis=0)

    @property
    def bound(self) -> Array:
        """The one-sample bound of the whole data set, in nats."""
        whole = [t for t in self.model.values() if not t.ndim] + [-t for t in self.guide.values() if not t.ndim]
        return self.scale * self.log_weights.sum() + sum(whole, jnp.zeros(()))


class TracedTerms(NamedTuple):
    """The log densities, and the sites of program and guide that they were read off."""

    terms: LogTerms
    model: dict[str, Any]
    guide: dict[str, Any]


def log_terms(
    key: Key, params: dict[str, Any], model: Program, guide: Program, *args: object, **kwargs: object
) -> LogTerms:
    """Draw x from the guide and evaluate every site of guide and program, z summed out of the program.

    Raises:
        ValueError: a site of the program has no counterpart in the guide (the site is named).
    """
    return traced_terms(key, params, model, guide, *args, **kwargs).terms


def traced_terms(
    key: Key, params: dict[str, Any], model: Program, guide: Program, *args: object, **kwargs: object
) -> TracedTerms:
    """As :func:`log_terms`, with the sites themselves.

    Raises:
        ValueError: a site of the program has no counterpart in the guide (the site is named).
        RunError: the site is an enumerated one, which another loss sums.
    """
    model_key, guide_key = random.split(key)
    guide_trace = trace(substitute(seed(guide, guide_key), data=params)).get_trace(*args, **kwargs)
    sampled = {n for n, s in guide_trace.items() if s["type"] == "sample" and not s["is_observed"]}
    # A guide that samples z itself is taken at its word; otherwise z is summed.
    program = model if "z" in sampled else summed_out(model)
    program = replay(substitute(seed(program, model_key), data=params), guide_trace)
    model_trace = trace(program).get_trace(*args, **kwargs)
    for name, site in model_trace.items():
        if site["type"] == "sample" and not site["is_observed"] and name not in sampled:
            if site["infer"].get("enumerate") == "parallel":
                raise RunError(
                    f"MarkovELBO() sums z on the program model itself. This one has the enumerated site '{name}', "
                    "as model.enumerated has: TraceMarkovEnum_ELBO() sums those."
                )
            raise ValueError(
                f"The program's site '{name}' is not sampled by the guide, which has {sorted(sampled)}. "
                f"Add numpyro.sample('{name}', ...) to the guide, or use one of mrsds_ppl.guides."
            )
    check_model_guide_match(model_trace, guide_trace)
    if "x" in sampled:
        shared = [found for found in guide_trace["x"]["intermediates"] or [] if isinstance(found, Evaluated)]
        model_trace["x"]["intermediates"] = shared
    scales = [s["scale"] for s in model_trace.values() if s["type"] == "sample" and s["scale"] is not None]
    terms = LogTerms(_log_probs(model_trace), _log_probs(guide_trace), scales[0] if scales else 1.0)
    return TracedTerms(terms, model_trace, guide_trace)


def _log_probs(sites: dict[str, Any]) -> dict[str, Array]:
    terms = {}
    for name, site in sites.items():
        if site["type"] != "sample":
            continue
        if site["intermediates"]:
            log_prob = site["fn"].log_prob(site["value"], site["intermediates"])
        else:
            log_prob = site["fn"].log_prob(site["value"])
        terms[name] = log_prob if any(f.name == "trials" for f in site["cond_indep_stack"]) else jnp.sum(log_prob)
    return terms


class MeanOverDraws(ELBO):
    """A loss of NumPyro that is the negative mean of a bound over draws of the guide."""

    can_infer_discrete = True

    def loss_with_mutable_state(
        self, rng_key: Key, param_map: dict[str, Any], model: Program, guide: Program, *args: object, **kwargs: object
    ) -> dict[str, Any]:
        """The negative bound, side by side or one after another as ``vectorize_particles`` says."""

        def one(key: Key) -> Array:
            return self.bound(key, param_map, model, guide, *args, **kwargs)

        if self.num_particles == 1:
            bound = one(rng_key)
        else:
            bound = self.vectorize_particles_fn(one, random.split(rng_key, self.num_particles)).mean()
        return {"loss": -bound, "mutable_state": None}

    def bound(
        self, key: Key, params: dict[str, Any], model: Program, guide: Program, *args: object, **kwargs: object
    ) -> Array:
        """The bound at one draw of the guide."""
        raise NotImplementedError


class MarkovELBO(MeanOverDraws):
    """The plain bound for programs built on :func:`mrsds_ppl.ppl.markov.markov`: z is summed, never sampled.

    Use it as any NumPyro loss: ``SVI(model, guide, optax_optimizer, loss=MarkovELBO()).run(key, 2000, batch)``.

    Args:
        num_particles: draws of the guide a step; the bound is their mean.
        vectorize_particles: evaluate the draws side by side (``True``) or one after another.
    """

    def bound(
        self, key: Key, params: dict[str, Any], model: Program, guide: Program, *args: object, **kwargs: object
    ) -> Array:
        """log sum_z p(x, z, y) - log q(x) at one draw of x."""
        return log_terms(key, params, model, guide, *args, **kwargs).bound


def log_weights(
    key: Key, params: dict[str, Any], model: Program, guide: Program, *args: object, num_samples: int
) -> Float[Array, "sample trial"]:
    """log p(x_s, y) - log q(x_s) of ``num_samples`` draws for each trial, one draw at a time in memory."""
    keys = random.split(key, num_samples)
    return jax.lax.map(lambda k: log_terms(k, params, model, guide, *args).log_weights, keys)


def importance_weighted_bound(weights: Float[Array, "sample trial"]) -> Float[Array, " trial"]:
    """log mean_s exp(log weight) of each trial (Burda, Grosse and Salakhutdinov, 2016), in nats."""
    return jax.nn.logsumexp(weights, axis=0) - jnp.log(weights.shape[0])
