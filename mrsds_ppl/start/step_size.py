"""How large the learning rate may be where the program is fitted already.

A step of Adam moves every weight by about the learning rate alpha, so that it moves the mean of latent i of the next
bin by up to

    alpha L_i,    L_i = sum_w |d f_k,i(x, u) / d w|,

the more, the more messages a region hears and the more hidden units they have. Around a fitted program a step should
stay within what the noise of that latent, q_i, makes likely anyway: alpha <= 1 / mean(L_i / q_i), over bins, states
and latents. With more, training leaves what the start has found, and with many regions it runs away.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import PyTree
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import MRSDS

# It hardly differs from bin to bin.
_BINS = 16


def largest_rate(values: dict[str, PyTree], model: MRSDS, guide: AutoGuide, data: Batch) -> float:
    """The largest learning rate for a fitted program.

    Args:
        values: of the sites of program and guide.
        model, guide: the program, and where its paths are read off.
        data: training trials.
    """
    dynamics = model.networks_from(values).dynamics
    x, u = guide.median(values, data)["x"], model.dynamics_inputs(data.u)
    trials, bins = np.nonzero(np.arange(1, x.shape[1]) < np.asarray(data.lengths)[:, None])
    chosen = np.linspace(0, len(trials) - 1, min(_BINS, len(trials))).astype(int)
    trials, bins = trials[chosen], bins[chosen]
    weights, rest = eqx.partition(dynamics, eqx.is_inexact_array)

    def reach(row: tuple[Array, Array]) -> Array:
        def means(weights: PyTree) -> Array:
            x, u = row
            return eqx.combine(weights, rest).means(x[None], u[None])[:, 0]

        slopes = jax.tree.leaves(jax.jacrev(means)(weights))
        return sum((jnp.abs(slope).sum(range(2, slope.ndim)) for slope in slopes), jnp.zeros(()))

    found = jax.jit(lambda rows: lax.map(reach, rows))((x[trials, bins], u[trials, bins + 1]))
    return 1.0 / float((found / dynamics.noise.scale).mean())
