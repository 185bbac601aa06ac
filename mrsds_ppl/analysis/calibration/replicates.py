"""Recordings simulated from a fit, whose truth is known: a parametric bootstrap."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import path_messages
from mrsds_ppl.analysis.posterior_paths import PosteriorPaths
from mrsds_ppl.analysis.rollouts import generate
from mrsds_ppl.data.trials import Trials


def replicate(key: PRNGKeyArray, fitted: FittedProgram, trials: Trials) -> Trials:
    """Trials drawn from a fitted program: as long as the recorded ones, with their inputs, and missing where they are.

    Args:
        key: random key.
        fitted: program and parameters.
        trials: the recording.
    """
    batch, model = trials.batch(), fitted.model
    path_key, signal_key = random.split(key)
    path = generate(path_key, fitted, np.asarray(batch.u), trials.lengths, stages=np.asarray(batch.stage))
    x = np.nan_to_num(path.x)
    signals = np.asarray(_signals(signal_key, fitted, jnp.asarray(x), jnp.asarray(batch.observed)))
    signals = np.where(batch.observed, signals, np.nan)
    states = np.eye(model.num_states, dtype=x.dtype)[np.maximum(path.z, 0)]
    messages = path_messages(fitted, trials, PosteriorPaths(x[None], states[None])).values[0]
    regions = len(model.latent_sizes)
    each = [
        [values[i, :length] for i, length in enumerate(trials.lengths)]
        for values in (signals, batch.u, batch.stage, path.x, path.z, messages[:, :, :, :regions])
    ]
    ys, us, stages, xs, zs, sent = each
    return Trials.from_arrays(
        ys,
        us if trials.num_inputs else None,
        trials.region_sizes,
        region_names=trials.region_names,
        neurons=trials.neuron_ids,
        input_names=trials.input_names,
        bin_width=trials.bin_width,
        stages=stages if trials.num_stages else None,
        x=xs,
        z=zs,
        messages=sent,
    )


@jax.jit
def _signals(key: PRNGKeyArray, fitted: FittedProgram, x: Array, observed: Array) -> Array:
    return fitted.networks.emissions.law(x, observed).sample(key)
