"""Initial weights, drawn on the host: compiling a random operation for every shape of a network takes seconds.

Where the key itself is being traced (networks built inside ``jit``, ``vmap`` or ``eval_shape``) JAX draws them, to
other numbers of the same law.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray


def split(key: PRNGKeyArray, count: int) -> list[PRNGKeyArray]:
    """``count`` independent keys."""
    if isinstance(key, jax.core.Tracer):
        return list(random.split(key, count))
    words = np.random.SeedSequence(_words(key)).spawn(count)
    return [random.wrap_key_data(jax.device_put(w.generate_state(2)), impl=random.key_impl(key)) for w in words]


def normal(key: PRNGKeyArray, shape: tuple[int, ...], scale: float | np.ndarray = 1.0) -> Float[Array, "..."]:
    """Independent normal numbers of standard deviation ``scale``, which may vary along the last axes."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    if isinstance(key, jax.core.Tracer):
        return jnp.asarray(scale, dtype) * random.normal(key, shape, dtype)
    # `jnp.asarray` would compile a conversion for every shape.
    return jax.device_put((scale * np.random.default_rng(_words(key)).standard_normal(shape)).astype(dtype))


def _words(key: PRNGKeyArray) -> list[int]:
    return [int(word) for word in np.asarray(random.key_data(key)).ravel()]
