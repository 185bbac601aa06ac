"""Structured guide for one state (published name ``svae``): the program's dynamics, corrected in every bin.

    x_t = g_t f(x_{t-1}, u_t) + psi_t,    psi_t ~ N((1 - g_t) h_t, S_t),    x_1 ~ N(h_1, S_1)

h_t, S_t and the gate 0 < g_t < 1 (by latent) come from the encoder. A path lies between what the dynamics predict and
what the encoder sees, as after the update of a Kalman filter, of which 1 - g_t is the gain. With g_t = 1, as published
(``gated=False``), psi_t ~ N(h_t - f(h_{t-1}, u_t), S_t), and deviations from h grow as the dynamics let them.
``psi_add=False`` mixes h_t in before the networks, x_t = f(g_t x_{t-1} + (1 - g_t) h_t, u_t) + psi_t with psi_t of mean
zero: noise that itself went through the networks would leave no density of x that can be computed exactly.
"""

from collections.abc import Callable, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.guides.base import AmortizedGuide, AmortizedOptions, lower_triangle, padding, positive
from mrsds_ppl.guides.rollout import Drive, Rollout
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.models.program import Program


class Structured(AmortizedGuide):
    """Rollout guide of a program with one state.

    Args:
        psi_add: see above.
        gated: see above.
        triangular: S_t full within a bin; otherwise diagonal.
        (others): see :class:`AmortizedGuide`.

    Raises:
        ConfigError: the program has several states.
    """

    def __init__(
        self, model: Program, *, psi_add: bool = True, gated: bool = True, **kwargs: Unpack[AmortizedOptions]
    ) -> None:
        if model.num_states > 1:
            raise ConfigError(
                f"inference.guide: structured is for one state, but model.num_states is {model.num_states}; "
                "use switching_structured (published name s-svae)"
            )
        self.psi_add, self.gated = psi_add, gated
        super().__init__(model, **kwargs)

    def head_sizes(self) -> Sequence[int]:
        return rollout_sizes(self.model.num_latents)

    def law(self, outputs: list[Array], batch: Batch, networks: Callable[[], Networks]) -> dist.Distribution:
        return rollout_law(
            outputs,
            batch,
            networks(),
            jnp.ones((*batch.y.shape[:2], 1), outputs[0].dtype),
            inputs=self.model.options.ux,
            psi_add=self.psi_add,
            gated=self.gated,
            triangular=self.triangular,
            trainable_covariance=self.trainable_covariance,
        )


def rollout_sizes(num_latents: int) -> tuple[int, ...]:
    """Widths of the heads that :func:`rollout_law` reads: mean, scale, gate, and what is below the diagonal."""
    return (num_latents, num_latents, num_latents, num_latents * (num_latents - 1) // 2)


def rollout_law(
    outputs: list[Array],
    batch: Batch,
    networks: Networks,
    weights: Float[Array, "trial bin state"],
    *,
    inputs: bool,
    psi_add: bool,
    gated: bool,
    triangular: bool,
    trainable_covariance: bool,
) -> Rollout:
    """The law of the module's equations from the heads' outputs.

    Args:
        outputs: as :func:`rollout_sizes` counts them; more may follow.
        batch: the trials.
        networks: those of the program.
        weights: w_t.
        inputs: whether u enters the dynamics.
        psi_add, gated, triangular, trainable_covariance: form of the law.
    """
    pad, (seen, raw_scale, raw_gate, lower) = padding(batch), outputs[:4]
    latents = seen.shape[-1]
    seen = jnp.where(pad, 0.0, seen)
    scale = jnp.where(pad, 1.0, positive(raw_scale))
    cholesky = scale[..., None] * jnp.eye(latents, dtype=seen.dtype)
    if triangular:
        cholesky = cholesky + jnp.where(pad[..., None], 0.0, lower_triangle(lower, latents))
    if not trainable_covariance:
        cholesky = lax.stop_gradient(cholesky)
    u = batch.u if inputs else batch.u[..., :0]
    drive, valid = Drive(networks.dynamics, u, weights), ~pad[..., 0]
    if gated:
        gate = jnp.where(pad, 0.0, jax.nn.sigmoid(raw_gate))
        later = (1.0 - gate[:, 1:]) * seen[:, 1:]
    else:
        gate = jnp.ones_like(seen)
        later = seen[:, 1:] - seen[:, :-1]
        if psi_add:
            means = drive.dynamics.means(seen[:, :-1], u[:, 1:])
            later = seen[:, 1:] - jnp.einsum("btk,kbtd->btd", weights[:, 1:], means)
    shift = jnp.where(pad, 0.0, jnp.concatenate([seen[:, :1], later], axis=1))
    return Rollout(drive, gate, shift, cholesky, valid, psi_add=psi_add)
