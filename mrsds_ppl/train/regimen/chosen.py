"""Terms that temper training, each off unless it is asked for. None of them enters the bound that is reported.

The objective maximises the plain bound plus what each term adds to it, in nats of the data set:

    weights of the prior  beta_s (x0_weight log p(x_1) + log p(x_2:T | x_1)) - log p(x)
    overshooting          sum_h w_h S_h - log p(x, y), see :mod:`mrsds_ppl.train.regimen.overshoot`
    z-KL                  -kl_z_scale sum_t KL(w_t || p(z_t | x))
    smoothness            -smooth_coef (|D x|_1 + |D^2 x|_1 + |D^3 x|_1)
    temperature           tau log sum_z p(x, z)^(1 / tau) - log p(x)
    sparse messages       -lambda N sum g, see :mod:`mrsds_ppl.train.regimen.sparsity`
    straight messages     -lambda N sum b, see :mod:`mrsds_ppl.train.regimen.bending`

Source of the terms: Karniol-Tambour et al., ICLR 2024, and its published configurations.
"""

from dataclasses import dataclass
from typing import NamedTuple

from mrsds_ppl.config.names import ROLLOUT_GUIDES
from mrsds_ppl.train.regimen.bending import message_bends
from mrsds_ppl.train.regimen.sparsity import message_sizes
from mrsds_ppl.train.regimen.terms import (
    Temperature,
    Term,
    message_penalty,
    overshooting,
    prior_weights,
    smoothness,
    state_kl,
    tempering,
)


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
            on.append(prior_weights(regimen.beta_max, regimen.beta_warmup_steps, regimen.x0_weight, num_steps))
        else:
            named = [k for k in ("beta_max", "x0_weight") if getattr(regimen, k) is not None]
            notes.append(f"training.{', training.'.join(named)}: ignored by guide {guide}, on {_either()} only")
    elif regimen.beta_warmup_steps is not None:
        notes.append("training.beta_warmup_steps: has no effect without training.beta_max")
    if regimen.overshoot:
        on.append(overshooting(regimen.overshoot))
    if regimen.kl_z_scale is not None:
        if records_state_weights:
            on.append(state_kl(regimen.kl_z_scale))
        else:
            notes.append(f"training.kl_z_scale: ignored by guide {guide}, which has no state weights of its own")
    if regimen.smooth_coef is not None:
        on.append(smoothness(regimen.smooth_coef))
    if regimen.message_sparsity is not None:
        on.append(message_penalty("message_size", message_sizes, regimen.message_sparsity))
    if regimen.message_bending is not None:
        on.append(message_penalty("message_bend", message_bends, regimen.message_bending))
    if regimen.temperature is not None:
        if num_states == 1:
            notes.append("training.temperature_annealing: has no effect with one state")
        elif structured:
            notes.append(f"training.temperature_annealing: ignored by guide {guide}")
        else:
            on.append(tempering(regimen.temperature))
    return Terms(tuple(on), tuple(notes))


def _either() -> str:
    return " and ".join(ROLLOUT_GUIDES)
