"""Transitions of the discrete state.

p(z_t | z_{t-1}=j, x_{t-1}, u_t) = softmax_i( (W [x_{t-1}; u_t; s_t] + b)_{ji} )
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.nn import draws


class Transitions(eqx.Module):
    """Recurrent transitions of K states.

    Args:
        num_states: K.
        num_features: width of the features that enter W (latents, inputs, stages, as chosen); 0 for a Markov chain.
        hidden: width of one hidden layer of rectified units before W, or 0 for none.
        stay: probability of keeping the state at the start of training.
        key: random key.
    """

    hidden_weight: Float[Array, "hidden feature"] | None
    weight: Float[Array, "from to feature"]
    bias: Float[Array, "from to"]

    def __init__(
        self, num_states: int, num_features: int, *, hidden: int = 0, stay: float = 0.95, key: PRNGKeyArray
    ) -> None:
        keys = draws.split(key, 2)
        self.hidden_weight = None
        if hidden and num_features:
            self.hidden_weight = draws.normal(keys[0], (hidden, num_features), 1 / np.sqrt(num_features))
        width = hidden if self.hidden_weight is not None else num_features
        self.weight = draws.normal(keys[1], (num_states, num_states, width), 0.01)
        leave = (1.0 - stay) / max(num_states - 1, 1)
        prob = np.where(np.eye(num_states, dtype=bool), stay if num_states > 1 else 1.0, leave)
        self.bias = jnp.asarray(np.log(prob), jax.dtypes.canonicalize_dtype(float))

    def logits(self, features: Float[Array, "*batch feature"]) -> Float[Array, "from *batch to"]:
        """Unnormalised log p(z_t = to | z_{t-1} = from)."""
        if self.hidden_weight is not None:
            features = jax.nn.relu(features @ self.hidden_weight.T)
        num_states = self.bias.shape[0]
        flat = features @ self.weight.reshape(num_states**2, -1).T + self.bias.reshape(-1)
        return jnp.moveaxis(flat.reshape(*features.shape[:-1], num_states, num_states), -2, 0)
