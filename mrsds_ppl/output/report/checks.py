"""Whether a fit is to be trusted: each check is a finding and a plain sentence on what it means."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from mrsds_ppl.analysis.summary import fall_of_bound

Status = Literal["good", "look", "bad"]

_RARE = 0.02  # share of bins under which a state counts as unused


class Check(NamedTuple):
    """One check: how it ended, of what, what was found, and what that means to a reader who does not know the code."""

    status: Status
    title: str
    found: str
    meaning: str


@dataclass(frozen=True)
class Evidence:
    """Numbers that the checks read.

    ``elbo``: bound of every training step, ``elbo_test`` that of the test trials, both in nats per observed value.
    ``occupancy``: share of training bins of each state by its probability, ``certainty``: mean probability of the
    likeliest state. Scores are R^2: of reconstructed training and test trials, and of hidden neurons by the model, by
    the trial average and by linear regression (NaN where no neuron was hidden).
    """

    step: int
    num_steps: int
    skipped: int
    elbo: Float[np.ndarray, " step"]
    elbo_test: float
    occupancy: Float[np.ndarray, " state"]
    certainty: float
    r2_train: float
    r2_test: float
    r2_hidden: float
    r2_hidden_average: float
    r2_hidden_linear: float


def run_checks(evidence: Evidence) -> list[Check]:
    """All checks, the most serious kind of trouble first."""
    checks = [_finished(evidence), _skipped(evidence), _settled(evidence), _gap(evidence)]
    if np.isfinite(evidence.r2_hidden):
        checks.append(_beats_baselines(evidence))
    if len(evidence.occupancy) > 1:
        checks += [_states_used(evidence), _states_certain(evidence)]
    return checks


def _finished(e: Evidence) -> Check:
    found = f"{e.step} of {e.num_steps} steps done."
    if e.step >= e.num_steps:
        return Check("good", "Training finished", found, "The run went through to its last planned step.")
    return Check(
        "bad",
        "Training finished",
        found,
        "The run was stopped early, so everything on this page is of an unfinished fit. Go on with --resume.",
    )


def _skipped(e: Evidence) -> Check:
    share = e.skipped / max(e.step, 1)
    found = f"{e.skipped} of {e.step} steps skipped."
    if e.skipped == 0:
        meaning = "Every step of the optimiser gave finite numbers; none had to be left out."
        return Check("good", "Numerical trouble", found, meaning)
    return Check(
        "look" if share < 0.01 else "bad",
        "Numerical trouble",
        found,
        "A step whose loss or gradient is not a finite number is left out. A few do no harm; many mean that the "
        "learning rate is too high or that the recording holds extreme values.",
    )


def _settled(e: Evidence) -> Check:
    values = e.elbo[np.isfinite(e.elbo)]
    if len(values) < 20:
        return Check("look", "Training settled", f"{len(values)} steps.", "Too few steps to tell; train for longer.")
    if (fall := fall_of_bound(values)) is not None:
        return Check(
            "bad",
            "Training settled",
            f"The bound fell from {fall.best:.4g} to {fall.last:.4g} nats per observed value.",
            "The fit was better before than at its end: steps were too large. Lower training.learning_rate.",
        )
    fifth = len(values) // 5
    last, before = values[-fifth:], values[-2 * fifth : -fifth]
    rise = float(last.mean() - before.mean())
    # Of the whole rise after the first tenth, where the curve comes down from its start.
    whole = float(last.mean() - values[len(values) // 10 : len(values) // 10 + max(fifth // 2, 1)].mean())
    noise = 2 * float(np.hypot(last.std(), before.std())) / np.sqrt(fifth)
    found = f"The bound rose by {rise:.2g} nats per observed value in the last fifth of training."
    if rise > max(noise, 0.1 * abs(whole), 1e-3):
        return Check(
            "look",
            "Training settled",
            found,
            "The fit was still getting better when it stopped; more steps (training.num_steps, or all of them with "
            "training.follow_bound: false) would improve it.",
        )
    meaning = "That is within its noise or small beside the whole rise; more steps would change little."
    return Check("good", "Training settled", found, meaning)


def _gap(e: Evidence) -> Check:
    gap = e.r2_train - e.r2_test
    train = float(np.nanmean(e.elbo[-max(len(e.elbo) // 20, 1) :])) if len(e.elbo) else float("nan")
    found = (
        f"R² {e.r2_train:.3f} on trials it was trained on, {e.r2_test:.3f} on new ones; "
        f"bound {train:.3f} and {e.elbo_test:.3f} nats per observed value."
    )
    if gap <= max(0.02, 0.1 * abs(e.r2_train)):
        meaning = "New trials are described as well as those it was trained on: it has not learned them by heart."
        return Check("good", "Training and test trials", found, meaning)
    return Check(
        "look" if gap <= max(0.05, 0.3 * abs(e.r2_train)) else "bad",
        "Training and test trials",
        found,
        "The fit describes its training trials better than new ones. It has partly learned them by heart: use fewer "
        "latents or states, fewer steps, neuron dropout, or more trials.",
    )


def _beats_baselines(e: Evidence) -> Check:
    found = (
        f"R² of neurons hidden from the model {e.r2_hidden:.3f}; trial average {e.r2_hidden_average:.3f}, "
        f"linear regression on the other neurons {e.r2_hidden_linear:.3f}."
    )
    title = "Better than plain predictions"
    if e.r2_hidden <= e.r2_hidden_average:
        meaning = (
            "The average over trials predicts unseen neurons at least as well: the latents tell nothing about single "
            "trials that it does not. Do not interpret them."
        )
        return Check("bad", title, found, meaning)
    if e.r2_hidden < 0.9 * e.r2_hidden_linear:
        meaning = (
            "The latents beat the trial average, but linear regression on all other neurons does better: more latent "
            "dimensions may be needed."
        )
        return Check("look", title, found, meaning)
    meaning = "The latents predict neurons that the model did not see, beyond the average over trials."
    return Check("good", title, found, meaning)


def _states_used(e: Evidence) -> Check:
    found = "Share of bins: " + ", ".join(f"state {k} {share:.1%}" for k, share in enumerate(e.occupancy)) + "."
    rare = [k for k, share in enumerate(e.occupancy) if share < _RARE]
    if not rare:
        return Check("good", "States in use", found, "Every state takes a share of the recording.")
    named = ", ".join(f"state {k}" for k in rare)
    return Check(
        "look",
        "States in use",
        found,
        f"{named[0].upper()}{named[1:]}: hardly ever visited, so what is drawn of it below rests on few bins or none. "
        "Fewer states (-k) would describe the recording as well.",
    )


def _states_certain(e: Evidence) -> Check:
    found = f"The likeliest state has probability {e.certainty:.2f} on average (chance {1 / len(e.occupancy):.2f})."
    if e.certainty >= 0.85:
        meaning = "The posterior is rarely in doubt about the state of a bin."
        return Check("good", "States told apart", found, meaning)
    meaning = "The states are hard to tell apart in this recording; read differences between them with care."
    return Check("look", "States told apart", found, meaning)
