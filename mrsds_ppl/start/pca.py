"""Data-driven start: emissions and the encoder's direct path from a principal component analysis of each region.

With signals smoothed over time, Y_r ~ b + X_r C_r^T, X_r of unit variance; the direct path starts as the posterior
mean of one bin, x = (I + C^T S^-1 C)^-1 C^T S^-1 (y - b). Switching models fail by their start, and this one puts
every latent where the activity is.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.guides.base import Recognition, SessionRecognition
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.emissions.sessions import SessionEmissions
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.statespace.aligned_components import aligned_components
from mrsds_ppl.statespace.principal_components import Components, principal_components
from mrsds_ppl.train.history import Keys

_LOADINGS = "emissions/readout.weight_auto_loc"
# A neuron that never varied in training has no spread to be measured by, and an encoder no weights that were trained on
# it: a count of one, or a value as far from its own as others of its region vary, counts as one standard deviation.
_ONE_COUNT = 1.0
# A neuron that fired a few times only: a single count is at most ten standard deviations for the encoder, as far as
# the rarest that other neurons ever show it.
_RAREST = 0.1


def encoder_spread(
    spread: Float[np.ndarray, " neuron"],
    region_of_neuron: Int[np.ndarray, " neuron"],
    counts: Bool[np.ndarray, " neuron"],
) -> Float[np.ndarray, " neuron"]:
    """What an encoder divides each neuron's signal by: its spread, with a floor in the neuron's own units.

    Counts have a unit, one spike: a spread of at least a tenth of it, and of one where the neuron was silent or
    constant in training. A signal that was constant is measured by the median spread of its region.

    Args:
        spread: standard deviation of each neuron's signal in training.
        region_of_neuron: index of its region.
        counts: which neurons' signals are counts.
    """
    varies = spread > 0
    floor = np.ones_like(spread)
    for region in np.unique(region_of_neuron):
        own = (region_of_neuron == region) & ~counts
        if (own & varies).any():
            floor[own] = np.median(spread[own & varies])
    of_counts = np.where(varies, np.maximum(spread, _RAREST), _ONE_COUNT)
    return np.where(counts, of_counts, np.where(varies, spread, floor))


def start_by_components(
    key: Keys, params: dict[str, PyTree], model: MRSDS, guide: AutoGuide, data: Batch
) -> dict[str, PyTree]:
    """A :class:`~mrsds_ppl.start.protocol.Start`: :func:`initialize` with the trials of a batch; nothing is random."""
    whole = jax.tree.map(np.asarray, data)
    signals = np.where(whole.observed, whole.y, np.nan)
    paths = [y[:length] for y, length in zip(signals, whole.lengths, strict=True)]
    trials = Trials.from_arrays(paths, region_sizes=model.region_sizes)
    return initialize(params, trials, model.latent_sizes)


def initialize(params: dict[str, PyTree], trials: Trials, latent_sizes: tuple[int, ...]) -> dict[str, PyTree]:
    """Parameters with emissions and recognition set from the data.

    Args:
        params: parameters by site, as declared by program and guide.
        trials: training trials.
        latent_sizes: latents of each region.
    """
    if trials.sessions is not None:
        return _of_sessions(params, trials, aligned_components(trials, latent_sizes))
    found = principal_components(trials, latent_sizes)
    before: Emissions = params["emissions$params"]
    emissions = before.at_components(found)
    params = {**params, "emissions$params": emissions}
    # Under a prior the loadings are a site of their own, and its posterior starts around them.
    if _LOADINGS in params and emissions.readout.hidden is None:
        params[_LOADINGS] = emissions.readout.weight
    if "recognition$params" in params:
        spread = encoder_spread(found.spread, trials.region_of_neuron, emissions.counts)
        params["recognition$params"] = _recognition(params["recognition$params"], found._replace(spread=spread))
    return params


def _of_sessions(params: dict[str, PyTree], trials: Trials, found: Sequence[Components]) -> dict[str, PyTree]:
    """:func:`initialize` from the components of each session."""
    before: SessionEmissions = params["emissions$params"]
    each = [before.parts.of(number).at_components(one) for number, one in enumerate(found)]
    params = {**params, "emissions$params": before.of_sessions(each)}
    if "recognition$params" in params and trials.own_neurons is not None:
        recognition: SessionRecognition = params["recognition$params"]
        started = []
        for number, one in enumerate(found):
            spread = encoder_spread(one.spread, trials.region_of_neuron, before.counts)
            own = _recognition(recognition.parts.of(number), one._replace(spread=spread))
            present = jnp.asarray(trials.own_neurons[number] != "", jnp.float32)
            started.append(eqx.tree_at(lambda r: r.standardizer.present, own, present))
        parts = recognition.parts.of_each(started)
        params["recognition$params"] = eqx.tree_at(lambda r: r.parts, recognition, parts)
    return params


def _recognition(recognition: Recognition, found: Components) -> Recognition:
    weighted = found.loadings / found.residual[:, None]
    posterior = np.linalg.inv(np.eye(found.loadings.shape[1]) + found.loadings.T @ weighted)
    direct = found.spread[:, None] * (weighted @ posterior)
    return eqx.tree_at(
        lambda r: (r.standardizer.center, r.standardizer.spread, r.direct),
        recognition,
        tuple(jnp.asarray(a, jnp.float32) for a in (found.center, found.spread, direct)),
    )
