"""What each term of the regimen adds to the bound; :mod:`mrsds_ppl.train.regimen.chosen` turns them on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, Int

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.dynamics import Dynamics, Rows
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.ppl.elbo import LogTerms
from mrsds_ppl.ppl.markov import Evaluated, Switching, potentials
from mrsds_ppl.statespace.chain import Chain, LogNormalizer, smooth
from mrsds_ppl.train.regimen.overshoot import horizon_scores
from mrsds_ppl.train.settings import Temperature as Temperature

NUM_CYCLES = 10

Step = Int[Array, ""] | int


@dataclass(frozen=True)
class Drawn:
    """What the terms read: one draw of the guide, the densities of its sites, and the program around it."""

    terms: LogTerms
    x: Float[Array, "trial bin latent"]
    switching: Switching
    networks: Networks
    batch: Batch
    state_weights: Float[Array, "trial bin state"] | None
    evaluated: Evaluated | None = None

    @cached_property
    def chain(self) -> Chain:
        """Log potentials of the states given x."""
        return potentials(self.switching, self.x, self.evaluated)


class Contribution(NamedTuple):
    """What a term adds to the bound, in nats of the data set, and what of it is logged."""

    added: Float[Array, ""]
    logged: dict[str, Float[Array, ""]]


Term = Callable[[Drawn, Step], Contribution]
Measure = Callable[[Dynamics, Rows], Float[Array, "state target source"]]


def beta_at(step: Step, beta_max: float, warmup_steps: int, num_steps: int) -> Float[Array, ""]:
    """Weight on log p(x): ten cycles over the run, each a line up and half a cosine down, never below 1.

        beta = max(1, beta_max r / w)                                          r < w
        beta = max(1, beta_max (1 + cos(pi (r - w) / (c - w))) / 2)            r >= w
        c = num_steps / 10,  w = warmup_steps / 10,  r = step mod c;           1 beyond the last cycle

    Args:
        step: from 0.
        beta_max: height of a cycle.
        warmup_steps: steps that the ten lines take together.
        num_steps: steps of the run.
    """
    now = _real(step)
    cycle = num_steps / NUM_CYCLES
    rise = min(max(warmup_steps / NUM_CYCLES, 1e-9), cycle)
    place = now - cycle * jnp.floor(now / cycle)
    falling = 0.5 * (1.0 + jnp.cos(jnp.pi * (place - rise) / max(cycle - rise, 1e-9)))
    shape = jnp.where(place < rise, place / rise, falling)
    return jnp.where(now < num_steps, jnp.maximum(1.0, beta_max * shape), 1.0)


def temperature_at(step: Step, schedule: Temperature) -> Float[Array, ""]:
    """tau = max(t_min, t_init rate^(max(0, step - kickin_steps) / steps)).

    Args:
        step: from 0.
        schedule: its numbers.
    """
    elapsed = jnp.maximum(_real(step) - schedule.kickin_steps, 0.0) / schedule.steps
    return jnp.maximum(schedule.t_min, schedule.t_init * schedule.rate**elapsed)


def tempered_log_normalizer(
    chain: Chain, temperature: Float[Array, ""] | float, log_normalizer: LogNormalizer
) -> Float[Array, "*batch"]:
    """tau log sum_z w(z)^(1 / tau) = max_q ( E_q log w(z) + tau H(q) ): the state posterior at a temperature.

    Args:
        chain: log potentials, log w(z) their sum along a path.
        temperature: tau; 1 gives the log normaliser, and toward 0 the weight of the likeliest path remains.
        log_normalizer: sums a chain.
    """
    return temperature * log_normalizer(jax.tree.map(lambda potential: potential / temperature, chain))


def state_divergence(
    weights: Float[Array, "trial bin state"], marginals: Float[Array, "bin state trial"], lengths: Int[Array, " trial"]
) -> Float[Array, " trial"]:
    """sum_t KL(w_t || p(z_t | x)) over valid bins, in nats.

    Args:
        weights: w_t, the guide's state probabilities.
        marginals: p(z_t | x).
        lengths: valid bins.
    """
    exact = jnp.moveaxis(marginals, -1, 0)
    tiny = 1e-30
    terms = weights * (jnp.log(jnp.maximum(weights, tiny)) - jnp.log(jnp.maximum(exact, tiny)))
    return jnp.where(_valid(weights, lengths), terms.sum(-1), 0.0).sum(-1)


def roughness(x: Float[Array, "trial bin latent"], lengths: Int[Array, " trial"]) -> Float[Array, " trial"]:
    """|D x|_1 + |D^2 x|_1 + |D^3 x|_1, the absolute first, second and third differences of x over valid bins.

    Args:
        x: paths.
        lengths: valid bins.
    """
    total, difference = jnp.zeros(x.shape[0], x.dtype), x
    for order in (1, 2, 3):
        difference = difference[:, 1:] - difference[:, :-1]
        kept = _valid(difference, lengths - order)
        total = total + jnp.where(kept, jnp.abs(difference).sum(-1), 0.0).sum(-1)
    return total


def prior_weights(beta_max: float | None, warmup_steps: int | None, x0_weight: float | None, num_steps: int) -> Term:
    """beta_s (x0_weight log p(x_1) + log p(x_2:T | x_1)) - log p(x), with beta_s of :func:`beta_at`.

    Args:
        beta_max: height of the cycles of beta; None keeps it at 1.
        warmup_steps: steps that beta rises, of all cycles together; None is half of ``num_steps``.
        x0_weight: weight on the first bin; None is 1.
        num_steps: steps of the run.
    """
    first_weight = 1.0 if x0_weight is None else x0_weight
    warmup = num_steps // 2 if warmup_steps is None else warmup_steps

    def term(drawn: Drawn, step: Step) -> Contribution:
        whole = path_log_density(drawn).sum()
        first = jax.nn.logsumexp(drawn.chain.initial, axis=0).sum()
        beta = jnp.ones(()) if beta_max is None else beta_at(step, beta_max, warmup, num_steps)
        beta = beta.astype(whole.dtype)
        added = beta * (first_weight * first + whole - first) - whole
        logged = {"log_px0": drawn.terms.scale * first}
        return Contribution(drawn.terms.scale * added, logged | ({} if beta_max is None else {"beta": beta}))

    return term


def overshooting(weights: tuple[float, ...]) -> Term:
    """sum_h w_h S_h - log p(x, y), see :mod:`mrsds_ppl.train.regimen.overshoot`.

    Args:
        weights: w_h from horizon 0.
    """

    def term(drawn: Drawn, step: Step) -> Contribution:
        plain = path_log_density(drawn) + drawn.terms.model["y"]
        ahead = horizon_scores(
            drawn.networks, drawn.switching, drawn.batch, drawn.x, drawn.chain, num_horizons=len(weights) - 1
        )
        scores = jnp.concatenate([plain[None], ahead]).sum(-1)
        overshoot = drawn.terms.scale * (jnp.asarray(weights, scores.dtype) @ scores)
        return Contribution(overshoot - drawn.terms.scale * plain.sum(), {"overshoot": overshoot})

    return term


def state_kl(scale: float) -> Term:
    """-scale sum_t KL(w_t || p(z_t | x)), w_t the guide's own state probabilities, see :func:`state_divergence`.

    Args:
        scale: weight.

    Raises:
        ValueError: at the first step, where the guide records no ``state_weights``.
    """

    def term(drawn: Drawn, step: Step) -> Contribution:
        if drawn.state_weights is None:
            raise ValueError("kl_z_scale: the guide records no site 'state_weights'; leave the term out.")
        # The guide is drawn toward the states of the program, not the program toward the guide's.
        exact = smooth(jax.tree.map(lax.stop_gradient, drawn.chain)).marginals
        divergence = drawn.terms.scale * state_divergence(drawn.state_weights, exact, drawn.batch.lengths).sum()
        return Contribution(-scale * divergence, {"kl_z": divergence})

    return term


def smoothness(coefficient: float) -> Term:
    """-coefficient (|D x|_1 + |D^2 x|_1 + |D^3 x|_1), see :func:`roughness`.

    Args:
        coefficient: weight.
    """

    def term(drawn: Drawn, step: Step) -> Contribution:
        rough = drawn.terms.scale * roughness(drawn.x, drawn.batch.lengths).sum()
        return Contribution(-coefficient * rough, {"roughness": rough})

    return term


def message_penalty(name: str, measure: Measure, coefficient: float) -> Term:
    """-coefficient N sum_krs m_krs, N valid bins in the data set, m a measure of the message from s to r in state k.

    Args:
        name: of the measure, in the log.
        measure: of the dynamics and the bins as rows.
        coefficient: weight.
    """

    def term(drawn: Drawn, step: Step) -> Contribution:
        dynamics, valid = drawn.networks.dynamics, _valid(drawn.x, drawn.batch.lengths)[:, 1:, None]
        weights = jnp.where(valid, jnp.moveaxis(smooth(drawn.chain).marginals, -1, 0)[:, 1:], 0.0)
        # Latents and states are as they are: the penalty shapes the networks alone.
        x, weights = lax.stop_gradient((drawn.x[:, :-1], weights))
        u = drawn.batch.u[:, 1:, : dynamics.num_inputs]
        bins = weights.shape[0] * weights.shape[1]
        sizes = measure(dynamics, Rows(*(a.reshape(bins, a.shape[-1]) for a in (x, u, weights))))
        penalty = drawn.terms.scale * drawn.batch.lengths.sum() * sizes.sum()
        return Contribution(-coefficient * penalty, {name: sizes.sum()})

    return term


def tempering(schedule: Temperature) -> Term:
    """tau log sum_z p(x, z)^(1 / tau) - log p(x), with tau of :func:`temperature_at`.

    Args:
        schedule: of tau.
    """

    def term(drawn: Drawn, step: Step) -> Contribution:
        temperature = temperature_at(step, schedule).astype(drawn.x.dtype)
        tempered = tempered_log_normalizer(drawn.chain, temperature, drawn.switching.log_normalizer)
        added = drawn.terms.scale * (tempered - path_log_density(drawn)).sum()
        return Contribution(added, {"temperature": temperature})

    return term


def path_log_density(drawn: Drawn) -> Float[Array, " trial"]:
    """log p(x) over valid bins: that of the site without the standard normal law of padded bins."""
    padded = ~_valid(drawn.x, drawn.batch.lengths)
    outside = jnp.where(padded, dist.Normal(0.0, 1.0).log_prob(drawn.x).sum(-1), 0.0).sum(-1)
    return drawn.terms.model["x"] - outside


def _valid(values: Array, lengths: Array | np.ndarray) -> Array:
    return jnp.arange(values.shape[1]) < lengths[:, None]


def _real(step: Step) -> Float[Array, ""]:
    return jnp.asarray(step).astype(jnp.zeros(()).dtype)
