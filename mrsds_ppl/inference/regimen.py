"""Terms that temper training, each off unless it is asked for. None of them enters the bound that is reported.

The objective maximises the plain bound plus what each term adds to it, in nats of the data set:

    weights of the prior  beta_s (x0_weight log p(x_1) + log p(x_2:T | x_1)) - log p(x)
    overshooting          sum_h w_h S_h - log p(x, y), see :mod:`mrsds_ppl.inference.overshoot`
    z-KL                  -kl_z_scale sum_t KL(w_t || p(z_t | x))
    smoothness            -smooth_coef (|D x|_1 + |D^2 x|_1 + |D^3 x|_1)
    temperature           tau log sum_z p(x, z)^(1 / tau) - log p(x)
    sparse messages       -lambda N sum g, see :mod:`mrsds_ppl.inference.sparsity`
    straight messages     -lambda N sum b, see :mod:`mrsds_ppl.inference.bending`

Source of the terms: Karniol-Tambour et al., ICLR 2024, and its published configurations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, Int

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.inference.bending import message_bends
from mrsds_ppl.inference.chain import Chain, LogNormalizer, smooth
from mrsds_ppl.inference.elbo import LogTerms
from mrsds_ppl.inference.markov import Evaluated, Switching, potentials
from mrsds_ppl.inference.overshoot import horizon_scores
from mrsds_ppl.inference.sparsity import message_sizes
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.names import ROLLOUT_GUIDES

NUM_CYCLES = 10

Step = Int[Array, ""] | int


class Temperature(NamedTuple):
    """Temperature of the state posterior over the steps, see :func:`temperature_at`."""

    t_init: float
    t_min: float
    rate: float
    steps: int
    kickin_steps: int


@dataclass(frozen=True)
class Regimen:
    """What is asked for; None is off. Names as in the configuration."""

    beta_max: float | None = None
    beta_warmup_steps: int | None = None
    x0_weight: float | None = None
    overshoot: tuple[float, ...] | None = None
    kl_z_scale: float | None = None
    smooth_coef: float | None = None
    temperature: Temperature | None = None
    message_sparsity: float | None = None
    message_bending: float | None = None


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


class Terms(NamedTuple):
    """The terms that are on, and a sentence about each that was asked for and has no effect."""

    on: tuple[Term, ...]
    notes: tuple[str, ...]


def make_terms(
    regimen: Regimen, *, guide: str, num_states: int, num_steps: int, records_state_weights: bool = False
) -> Terms:
    """The terms that a run trains with.

    Args:
        regimen: what is asked for.
        guide: name of the guide; beta and x0_weight act on the structured ones alone, as published, and the
            temperature on the others.
        num_states: K; one state has no posterior to temper.
        num_steps: steps of the run, over which beta has its cycles.
        records_state_weights: whether the guide records ``state_weights``, which the z-KL reads.
    """
    on: list[Term] = []
    notes = []
    structured = guide in ROLLOUT_GUIDES
    if regimen.beta_max is not None or regimen.x0_weight is not None:
        if structured:
            on.append(_prior_weights(regimen, num_steps))
        else:
            named = [k for k in ("beta_max", "x0_weight") if getattr(regimen, k) is not None]
            notes.append(f"training.{', training.'.join(named)}: ignored by guide {guide}, on {_either()} only")
    elif regimen.beta_warmup_steps is not None:
        notes.append("training.beta_warmup_steps: has no effect without training.beta_max")
    if regimen.overshoot:
        on.append(_overshoot(regimen.overshoot))
    if regimen.kl_z_scale is not None:
        if records_state_weights:
            on.append(_state_kl(regimen.kl_z_scale))
        else:
            notes.append(f"training.kl_z_scale: ignored by guide {guide}, which has no state weights of its own")
    if regimen.smooth_coef is not None:
        on.append(_smoothness(regimen.smooth_coef))
    if regimen.message_sparsity is not None:
        on.append(_message_penalty("message_size", message_sizes, regimen.message_sparsity))
    if regimen.message_bending is not None:
        on.append(_message_penalty("message_bend", message_bends, regimen.message_bending))
    if regimen.temperature is not None:
        if num_states == 1:
            notes.append("training.temperature_annealing: has no effect with one state")
        elif structured:
            notes.append(f"training.temperature_annealing: ignored by guide {guide}")
        else:
            on.append(_tempering(regimen.temperature))
    return Terms(tuple(on), tuple(notes))


def _either() -> str:
    return " and ".join(ROLLOUT_GUIDES)


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


def _prior_weights(regimen: Regimen, num_steps: int) -> Term:
    x0_weight = 1.0 if regimen.x0_weight is None else regimen.x0_weight
    warmup = num_steps // 2 if regimen.beta_warmup_steps is None else regimen.beta_warmup_steps

    def term(drawn: Drawn, step: Step) -> Contribution:
        whole = path_log_density(drawn).sum()
        first = jax.nn.logsumexp(drawn.chain.initial, axis=0).sum()
        beta = jnp.ones(()) if regimen.beta_max is None else beta_at(step, regimen.beta_max, warmup, num_steps)
        beta = beta.astype(whole.dtype)
        added = beta * (x0_weight * first + whole - first) - whole
        logged = {"log_px0": drawn.terms.scale * first}
        return Contribution(drawn.terms.scale * added, logged | ({} if regimen.beta_max is None else {"beta": beta}))

    return term


def _overshoot(weights: tuple[float, ...]) -> Term:
    def term(drawn: Drawn, step: Step) -> Contribution:
        plain = path_log_density(drawn) + drawn.terms.model["y"]
        ahead = horizon_scores(
            drawn.networks, drawn.switching, drawn.batch, drawn.x, drawn.chain, num_horizons=len(weights) - 1
        )
        scores = jnp.concatenate([plain[None], ahead]).sum(-1)
        overshoot = drawn.terms.scale * (jnp.asarray(weights, scores.dtype) @ scores)
        return Contribution(overshoot - drawn.terms.scale * plain.sum(), {"overshoot": overshoot})

    return term


def _state_kl(scale: float) -> Term:
    def term(drawn: Drawn, step: Step) -> Contribution:
        if drawn.state_weights is None:
            raise ValueError("kl_z_scale: the guide records no site 'state_weights'; leave the term out.")
        # The guide is drawn toward the states of the program, not the program toward the guide's.
        exact = smooth(jax.tree.map(lax.stop_gradient, drawn.chain)).marginals
        divergence = drawn.terms.scale * state_divergence(drawn.state_weights, exact, drawn.batch.lengths).sum()
        return Contribution(-scale * divergence, {"kl_z": divergence})

    return term


def _smoothness(coefficient: float) -> Term:
    def term(drawn: Drawn, step: Step) -> Contribution:
        rough = drawn.terms.scale * roughness(drawn.x, drawn.batch.lengths).sum()
        return Contribution(-coefficient * rough, {"roughness": rough})

    return term


def _message_penalty(
    name: str, measure: Callable[..., Float[Array, "state target source"]], coefficient: float
) -> Term:
    def term(drawn: Drawn, step: Step) -> Contribution:
        dynamics, valid = drawn.networks.dynamics, _valid(drawn.x, drawn.batch.lengths)[:, 1:, None]
        weights = jnp.where(valid, jnp.moveaxis(smooth(drawn.chain).marginals, -1, 0)[:, 1:], 0.0)
        # Latents and states are as they are: the penalty shapes the networks alone.
        x, weights = lax.stop_gradient((drawn.x[:, :-1], weights))
        u = drawn.batch.u[:, 1:, : dynamics.num_inputs]
        rows = weights.shape[0] * weights.shape[1]
        sizes = measure(dynamics, *(a.reshape(rows, a.shape[-1]) for a in (x, u, weights)))
        penalty = drawn.terms.scale * drawn.batch.lengths.sum() * sizes.sum()
        return Contribution(-coefficient * penalty, {name: sizes.sum()})

    return term


def _tempering(schedule: Temperature) -> Term:
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


def _valid(values: Array, lengths: Any) -> Array:
    return jnp.arange(values.shape[1]) < lengths[:, None]


def _real(step: Step) -> Float[Array, ""]:
    return jnp.asarray(step).astype(jnp.zeros(()).dtype)
