"""The short descent: where it ends, what it reports, and that each step has a key of its own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from mrsds_ppl.nn.adam import descend


def test_a_noisy_bowl_is_descended_to_its_bottom():
    aim = jnp.asarray([1.0, -2.0])

    def loss(params, key):
        return jnp.sum((params["x"] - aim - 0.1 * random.normal(key, (2,))) ** 2)

    start = {"x": jnp.zeros(2)}
    found = jax.jit(lambda key: descend(key, loss, start, num_steps=400, rate=0.05, last=0.01))(random.key(0))
    np.testing.assert_allclose(found.params["x"], aim, atol=0.05)
    np.testing.assert_allclose(found.losses[0], loss(start, random.split(random.key(0), 400)[0]), rtol=1e-6)
    assert found.losses.shape == (400,)
    assert np.ptp(np.asarray(found.losses[-20:])) > 0
