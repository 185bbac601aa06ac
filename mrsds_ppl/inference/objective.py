"""The training objective: the plain bound, and what is logged beside it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.inference.elbo import LogTerms, log_terms


def make_objective(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    num_observed: float,
    num_particles: int = 1,
    constrain: Callable[[Any], Any] = lambda params: params,
) -> Callable[[Any, Array, Batch, Array], tuple[Array, dict[str, Array]]]:
    """Minus the bound in nats per observed value, whose gradients have the same size for every data set.

    Metrics: ``elbo`` (nats per observed value), and in nats of the whole training set ``elbo_total``, ``log_px``,
    ``log_py``, ``log_qx``.

    Args:
        model, guide: program and guide.
        num_observed: observed values of the training set.
        num_particles: draws of the guide per step.
        constrain: from the parameters that are trained to the values of their sites.
    """

    def objective(params: Any, key: Array, batch: Batch, step: Array) -> tuple[Array, dict[str, Array]]:
        values = constrain(params)

        def one(key: Array) -> tuple[Array, dict[str, Array]]:
            terms = log_terms(key, values, model, guide, batch)
            return terms.bound, _parts(terms)

        if num_particles == 1:
            bound, parts = one(key)
        else:
            every = jax.vmap(one)(random.split(key, num_particles))
            bound, parts = jax.tree.map(lambda leaf: leaf.mean(0), every)
        return -bound / num_observed, {"elbo": bound / num_observed, "elbo_total": bound, **parts}

    return objective


def _parts(terms: LogTerms) -> dict[str, Array]:
    return {
        "log_px": terms.scale * jnp.sum(terms.model["x"]),
        "log_py": terms.scale * jnp.sum(terms.model["y"]),
        "log_qx": terms.scale * jnp.sum(terms.guide["x"]),
    }
