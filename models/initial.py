"""The first bin: z_1 ~ Cat(pi), x_1 | z_1 = k ~ N(mu_k, S_0)."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.nn import draws


class Initial(eqx.Module):
    """Law of the first state and latents.

    Args:
        num_states: K.
        num_latents: D.
        triangular, trainable: form of S_0.
        key: random key.
    """

    state_logits: Float[Array, " state"]
    means: Float[Array, "state latent"]
    noise: Covariance

    def __init__(
        self, num_states: int, num_latents: int, *, triangular: bool, trainable: bool, key: PRNGKeyArray
    ) -> None:
        self.state_logits = jnp.zeros(num_states)
        self.means = draws.normal(key, (num_states, num_latents), 0.1)
        self.noise = Covariance((num_latents,), 1.0, triangular=triangular, trainable=trainable)
