"""Structured guide for switching dynamics (published name ``s-svae``).

    x_t = g_t sum_k w_tk f_k(x_{t-1}, u_t) + psi_t,    psi_t ~ N((1 - g_t) h_t, S_t),    w_t = softmax of the encoder

The states of the program are summed exactly given x; w_t is the encoder's own guess of them, for the rollout alone. The
bound holds for any w; the z-KL of the training regimen may pull it toward the exact p(z_t | x, u). With one state the
guide is :class:`mrsds_ppl.guides.Structured`, whose other equations hold here too.
"""

from collections.abc import Callable, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.guides.base import AmortizedGuide, AmortizedOptions
from mrsds_ppl.guides.structured import rollout_law, rollout_sizes
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.models.program import Program


class SwitchingStructured(AmortizedGuide):
    """Rollout guide of a program with any number of states; it records w as the site ``state_weights``.

    Args:
        psi_add, gated, triangular: as of :class:`mrsds_ppl.guides.Structured`.
        (others): see :class:`AmortizedGuide`.
    """

    def __init__(
        self, model: Program, *, psi_add: bool = True, gated: bool = True, **kwargs: Unpack[AmortizedOptions]
    ) -> None:
        self.psi_add, self.gated = psi_add, gated
        super().__init__(model, **kwargs)

    def head_sizes(self) -> Sequence[int]:
        states = self.model.num_states
        return (*rollout_sizes(self.model.num_latents), *([states] if states > 1 else []))

    def law(self, outputs: list[Array], batch: Batch, networks: Callable[[], Networks]) -> dist.Distribution:
        if self.model.num_states > 1:
            weights = jax.nn.softmax(outputs[4], axis=-1)
        else:
            weights = jnp.ones((*batch.y.shape[:2], 1), outputs[0].dtype)
        numpyro.deterministic("state_weights", weights)
        return rollout_law(
            outputs,
            batch,
            networks(),
            weights,
            inputs=self.model.options.ux,
            psi_add=self.psi_add,
            gated=self.gated,
            triangular=self.triangular,
            trainable_covariance=self.trainable_covariance,
        )
