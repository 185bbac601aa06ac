"""Which program the held-out trials ask for: log p(y) of each trial, and the smallest program that does as well as any.

    log p(y) = log sum_z int p(y, x, z) dx

with the program linearised around a path smoothed from the signals alone, and no path of states dropped; see
:mod:`mrsds_ppl.statespace.gaussian_sum`. It is exact where dynamics and emissions are linear and Gaussian and there is
one state; with several, those that agreed in the last two bins are merged. Bounds compare programs less well: they also
differ by how loose q is.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.backend.trials_at_once import in_parts
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.filtering import count_transitions, smooth_new_trials
from mrsds_ppl.models.mrsds import MRSDS


class Choice(NamedTuple):
    """Mean difference of each program's evidence to the best one's, its standard error over trials, and the choice."""

    difference: dict[str, float]
    error: dict[str, float]
    best: str
    chosen: str


def trial_evidence(fitted: FittedProgram, trials: Trials) -> Float[np.ndarray, " trial"]:
    """log p(y) of each trial in nats, states and latents summed out.

    Args:
        fitted: program and parameters; the guide and its parameters are not used.
        trials: the trials.
    """
    model, data = fitted.model, trials.batch()
    paths = smooth_new_trials(fitted.params, model, data).moments
    return np.asarray(count_transitions(fitted.networks, model, in_parts(data), paths.mean).log_evidence)


def program_size(model: MRSDS) -> int:
    """Parameters of the program, the guide's left out."""
    return sum(leaf.size for leaf in jax.tree.leaves(model.networks) if hasattr(leaf, "size"))


def smallest_adequate(evidence: Mapping[str, Float[np.ndarray, " trial"]], errors: float = 2.0) -> Choice:
    """The first program whose mean evidence is within ``errors`` standard errors of the best.

    The standard error is that of the differences of the same trials, so trials that are hard for all do not count.

    Args:
        evidence: of each program by name, smallest program first, on the same trials.
        errors: standard errors.

    Raises:
        RunError: there are no programs, or their trials are not the same number.
    """
    if not evidence or len({len(values) for values in evidence.values()}) != 1:
        counts = {name: len(values) for name, values in evidence.items()}
        raise RunError(f"evidence: found {counts or 'no programs'}, need at least one, all on the same trials.")
    best = max(evidence, key=lambda name: float(evidence[name].mean()))
    difference, error = {}, {}
    for name, values in evidence.items():
        apart = values.astype(float) - evidence[best]
        difference[name] = float(apart.mean())
        error[name] = float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else float("nan")
    within = (name for name in evidence if name == best or difference[name] >= -errors * error[name])
    return Choice(difference, error, best, next(within))
