"""The training objective: the plain bound with the terms of the regimen, and what is logged beside it."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import PyTree

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.ppl.elbo import LogTerms, Program, TracedTerms, traced_terms
from mrsds_ppl.train.regimen.terms import Drawn, Term
from mrsds_ppl.train.schedules import OBSERVED_SHARE


@runtime_checkable
class HasNetworks(Protocol):
    """A program that the terms of the regimen read the networks of."""

    def __call__(self, batch: Batch) -> Array:
        """Sample the sites."""
        ...

    def networks_from(self, params: dict[str, Any]) -> Networks:
        """The networks with given values of the sites."""
        ...


def make_objective(
    model: HasNetworks,
    guide: Program,
    num_observed: float,
    num_particles: int = 1,
    constrain: Callable[[Any], Any] = lambda params: params,
    terms: tuple[Term, ...] = (),
) -> Callable[[Any, Array, Batch, Array], tuple[Array, dict[str, Array]]]:
    """Minus the bound in nats per observed value, whose gradients have the same size for every data set.

    Metrics: ``elbo`` (nats per observed value), ``observed_share`` (see :mod:`mrsds_ppl.train.schedules`), and in nats
    of the whole training set ``elbo_total``, ``log_px``, ``log_py``, ``log_qx``. All are those of the plain bound;
    ``terms`` add to what is minimised, and their own metrics.

    Args:
        model, guide: program and guide.
        num_observed: observed values of the training set.
        num_particles: draws of the guide per step.
        constrain: from the parameters that are trained to the values of their sites.
        terms: of the regimen, see :func:`mrsds_ppl.train.regimen.chosen.make_terms`.
    """

    def objective(params: PyTree, key: Array, batch: Batch, step: Array) -> tuple[Array, dict[str, Array]]:
        values = constrain(params)

        def one(key: Array) -> tuple[Array, Array, dict[str, Array]]:
            traced = traced_terms(key, values, model, guide, batch)
            bound, parts = traced.terms.bound, _parts(traced.terms, jnp.sum(batch.observed) / num_observed)
            if not terms:
                return bound, bound, parts
            drawn = _drawn(traced, values, model, batch)
            contributions = [term(drawn, step) for term in terms]
            aim = bound + sum((c.added for c in contributions), jnp.zeros((), bound.dtype))
            return aim, bound, parts | {name: v for c in contributions for name, v in c.logged.items()}

        if num_particles == 1:
            aim, bound, parts = one(key)
        else:
            every = jax.vmap(one)(random.split(key, num_particles))
            aim, bound, parts = jax.tree.map(lambda leaf: leaf.mean(0), every)
        return -aim / num_observed, {"elbo": bound / num_observed, "elbo_total": bound, **parts}

    return objective


def records_state_weights(guide: Program, params: dict[str, PyTree], batch: Batch) -> bool:
    """Whether a guide records ``state_weights``, its own state probabilities of each bin; nothing is computed.

    Args:
        guide: the guide.
        params: values of its sites.
        batch: any trials.
    """
    from numpyro.handlers import seed, substitute, trace

    found: set[str] = set()

    def look(params: dict[str, PyTree], batch: Batch) -> None:
        found.update(trace(substitute(seed(guide, random.key(0)), data=params)).get_trace(batch))

    jax.eval_shape(look, params, batch)
    return "state_weights" in found


def _drawn(traced: TracedTerms, values: dict[str, PyTree], model: HasNetworks, batch: Batch) -> Drawn:
    site, weights = traced.model["x"], traced.guide.get("state_weights")
    drawn = {name: s["value"] for name, s in traced.guide.items() if s["type"] == "sample"}
    return Drawn(
        terms=traced.terms,
        x=site["value"],
        switching=site["fn"].switching,
        networks=model.networks_from({**values, **drawn}),
        batch=batch,
        state_weights=None if weights is None else weights["value"],
        evaluated=next(iter(site["intermediates"]), None),
    )


def _parts(terms: LogTerms, observed: Array) -> dict[str, Array]:
    return {
        OBSERVED_SHARE: terms.scale * observed,
        "log_px": terms.scale * jnp.sum(terms.model["x"]),
        "log_py": terms.scale * jnp.sum(terms.model["y"]),
        "log_qx": terms.scale * jnp.sum(terms.guide["x"]),
    }
