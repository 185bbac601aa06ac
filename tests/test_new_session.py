"""A session with new neurons under a program that is known: its emissions are found, all else stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.models import MRSDS, EmissionOptions, ModelOptions
from mrsds_ppl.start.new_session import fit_new_session

TRIALS, BINS, NEURONS, REGIONS = 200, 20, 6, ["V1", "CA1"]


def followed(model: MRSDS, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paths of the program with one state, and the inputs that drive them."""
    means = jax.jit(lambda x, u: model.networks.dynamics.means(x, u)[0])
    u, scale = rng.normal(size=(TRIALS, BINS, 2)).astype(np.float32), np.asarray(model.networks.dynamics.noise.scale)
    x = [rng.normal(size=(TRIALS, 2))]
    for t in range(1, BINS):
        moved = means(jnp.asarray(x[-1], jnp.float32), jnp.asarray(u[:, t]))
        x.append(np.asarray(moved) + scale * rng.normal(size=(TRIALS, 2)))
    return np.stack(x, 1), u


@pytest.mark.nightly
def test_new_neurons_get_the_emissions_that_they_have():
    rng = np.random.default_rng(0)
    options = ModelOptions(ux=True, emissions=EmissionOptions(dist="gaussian"))
    model = MRSDS([NEURONS, NEURONS], 1, 1, key=random.key(3), num_inputs=2, options=options, num_sessions=1)
    (x, u), (other, driven) = followed(model, rng), followed(model, rng)
    loadings, offset = rng.normal(size=(2, NEURONS)) + np.array([[2.0], [-2.0]]), rng.normal(size=2 * NEURONS)
    clean = np.concatenate([other[..., [r]] * loadings[r] for r in range(2)], axis=-1) + offset
    y = clean + 0.2 * rng.normal(size=clean.shape)
    session = mrsds.join([mrsds.Trials.from_arrays(y, driven, [NEURONS] * 2, region_names=REGIONS)], regions=REGIONS)
    fitted = mrsds.Trials.from_arrays(np.zeros_like(y), u, [NEURONS] * 2, region_names=REGIONS)
    names = ("initial", "transitions", "dynamics", "emissions")
    params = {f"{name}$params": getattr(model.networks, name) for name in names}
    found = fit_new_session(model, session, fitted, x[None], params, random.key(0))
    readout = found["emissions$params"].readout
    # Two samples of the latents have variances and means that differ by about so much.
    np.testing.assert_allclose(readout.weight[0, :, 0], loadings.ravel(), rtol=0.15)
    np.testing.assert_allclose((readout.bias[0] - offset) / loadings.ravel(), 0.0, atol=0.3)
    assert all(found[f"{name}$params"] is params[f"{name}$params"] for name in names[:-1])
