"""Emissions of a session with new neurons under a fitted program, of which everything else stays as it is."""

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.models.emissions.sessions import SessionEmissions
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.start.session_emissions import fit_session, reference_of
from mrsds_ppl.statespace.principal_components import principal_components

_EMISSIONS = "emissions$params"


def fit_new_session(
    model: MRSDS,
    trials: Trials,
    fitted: Trials,
    draws: Float[np.ndarray, "draw trial bin latent"],
    params: dict[str, PyTree],
    key: PRNGKeyArray,
) -> dict[str, PyTree]:
    """Values of the program's sites for a session with new neurons; see :mod:`mrsds_ppl.start.session_emissions`.

    Args:
        model: the program of this session alone, of one session.
        trials: the session, joined by itself.
        fitted: training trials of the fit.
        draws: of their latents, a few.
        params: values of the sites of the fitted program.
        key: random key.

    Raises:
        RunError: the readout is a perceptron, whose hidden layers all sessions share.
    """
    begun = model.networks.emissions
    if not isinstance(begun, SessionEmissions) or begun.readout.hidden is not None:
        raise RunError("new neurons: need affine emissions of sessions; the fit has hidden layers, so fit it anew.")
    again = jax.tree.map(lambda part: np.concatenate([part] * len(draws)), fitted.batch())
    everywhere = np.ones(len(model.latent_sizes), bool)
    reference = reference_of(np.concatenate(list(draws)), again, model, everywhere)
    components = begun.parts.of(0).at_components(principal_components(trials, model.latent_sizes))
    params = {**params, _EMISSIONS: begun.of_sessions([components])}
    found = fit_session(key, params, model, jax.device_put(trials.batch()), 0, reference)
    return {**params, _EMISSIONS: begun.of_sessions([found.emissions])}
