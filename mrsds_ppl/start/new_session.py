"""Emissions of a session with new neurons under a fitted program, of which everything else stays as it is.

1. Principal components of its signals, in the coordinates of the fitted latents; see
   :mod:`mrsds_ppl.statespace.moment_alignment`.
2. Expectation-maximisation of the emissions alone: paths smoothed under the program and its likeliest states, and one
   step of Newton's method for readout and noise.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, PyTree

from mrsds_ppl.backend.trials_at_once import in_parts
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.emissions.sessions import SessionEmissions
from mrsds_ppl.models.filtering import smooth_and_find_states, smooth_new_trials
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.start.linear_program import improved_emissions
from mrsds_ppl.statespace.aligned_components import component_moments, region_there
from mrsds_ppl.statespace.moment_alignment import aligned, moments_of
from mrsds_ppl.statespace.principal_components import principal_components

_ROUNDS = 15
_EMISSIONS = "emissions$params"


def fit_new_session(
    params: dict[str, PyTree],
    model: MRSDS,
    trials: Trials,
    fitted: Trials,
    draws: Float[np.ndarray, "draw trial bin latent"],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, PyTree]:
    """Values of the program's sites for a session with new neurons.

    Args:
        params: values of the sites of the fitted program.
        model: the program of this session alone, of one session.
        trials: the session, joined by itself.
        fitted: training trials of the fit.
        draws: of their latents, a few.
        say: prints a line of progress.

    Raises:
        RunError: the readout is a perceptron, whose hidden layers all sessions share.
    """
    begun = model.networks.emissions
    if not isinstance(begun, SessionEmissions) or begun.readout.hidden is not None:
        raise RunError("new neurons: need affine emissions of sessions; the fit has hidden layers, so fit it anew.")
    sizes, valid = model.latent_sizes, np.arange(fitted.num_bins) < fitted.lengths[:, None]
    center = draws[:, valid].mean((0, 1))
    count = len(draws)
    reference = moments_of(
        np.concatenate(list(draws)) - center,
        np.tile(fitted.u, (count, 1, 1)),
        np.tile(fitted.lengths, count),
        sizes,
        noisy=False,
    )
    found = principal_components(trials, sizes)
    there = region_there(trials, 0, sizes)
    matrix = aligned(component_moments(trials, found, sizes), reference, sizes, there)
    loadings = found.loadings @ np.linalg.inv(matrix)
    found = found._replace(loadings=loadings, center=found.center - loadings @ center)
    params = {**params, _EMISSIONS: begun.of_sessions([begun.parts.of(0).at_components(found)])}
    data = jax.device_put(trials.batch())
    moments, states = smooth_new_trials(params, model, data)
    parts = in_parts(data)
    for number in range(_ROUNDS):
        params = {**params, _EMISSIONS: _improved(params[_EMISSIONS], data, moments)}
        networks = model.networks_from(params)
        moments, likeliest = smooth_and_find_states(networks, model, parts, moments.mean, states)
        states = likeliest.states
        if number in (0, _ROUNDS - 1):
            evidence = likeliest.nats_a_bin(parts)
            say(f"emissions of the new neurons, round {number + 1}: evidence {evidence:.4f} nats a bin")
    return params


_improved = jax.jit(improved_emissions)
