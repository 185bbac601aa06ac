"""The law of a path that the program's own dynamics roll out, shared by the structured guides.

    F_t(x) = sum_k w_tk f_k(x, u_t)
    psi_add        x_t = g_t F_t(x_{t-1}) + psi_t,              psi_t ~ N(m_t, L_t L_t^T),    x_1 = psi_1
    otherwise      x_t = F_t(g_t x_{t-1} + m_t) + psi_t,        psi_t ~ N(0, L_t L_t^T),      x_1 = m_1 + psi_1

psi_t enters additively, so the map psi -> x is triangular in time with a unit Jacobian and
log q(x) = sum_t log N(psi_t) exactly. F_t is held within [-100, 100], a hundred times the scale that latents start
with: networks that push apart, as they do for a while in training, would else overflow within a trial, and no later
step could bring them back.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.ppl.markov import Evaluated

_FARTHEST = 100.0


class Drive(NamedTuple):
    """What F_t is made of: the program's dynamics, u (trial, bin, input) and the weights w (trial, bin, state)."""

    dynamics: Dynamics
    u: Float[Array, "trial bin input"]
    weights: Float[Array, "trial bin state"]


class Rollout(dist.Distribution):
    """Law of a path under its own dynamics; batch (trial,), event (bin, latent).

    Args:
        drive: F_t.
        gate: g_t; that of the first bin is not used.
        shift: m_t.
        cholesky: L_t, lower triangular with positive diagonal.
        valid: False in padded bins, where x_t = psi_t; m_t is 0 and L_t the identity there.
        psi_add: whether the encoder's m_t enters after the networks, or before them.
    """

    support = constraints.independent(constraints.real, 2)
    reparametrized_params = ["gate", "shift", "cholesky"]  # noqa: RUF012 - the name and type are numpyro's
    has_rsample = True

    def __init__(
        self,
        drive: Drive,
        gate: Float[Array, "trial bin latent"],
        shift: Float[Array, "trial bin latent"],
        cholesky: Float[Array, "trial bin latent latent"],
        valid: Array,
        *,
        psi_add: bool = True,
    ) -> None:
        self.drive, self.gate, self.shift, self.cholesky = drive, gate, shift, cholesky
        self.valid, self.psi_add = valid, psi_add
        super().__init__(shift.shape[:1], shift.shape[1:], validate_args=False)

    @property
    def mean(self) -> Float[Array, "trial bin latent"]:
        """The path of psi at its mean. It is the mean of x itself where the networks are affine."""
        return self._roll(jnp.zeros_like(self.shift))[0]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample trial bin latent"]:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, list[Any]]:
        """Draws with their eps; a single one with its f_k too, which the program's density then takes over."""
        eps = random.normal(key, (*sample_shape, *self.batch_shape, *self.event_shape), self.shift.dtype)
        path, means = self._roll((self.cholesky * eps[..., None, :]).sum(-1))
        # Where psi enters before the networks, they are not evaluated at the path itself.
        shared = self.psi_add and not sample_shape
        return path, [eps, Evaluated(jnp.moveaxis(means, 0, 1))] if shared else [eps]

    def log_prob(
        self, value: Float[Array, "*sample trial bin latent"], intermediates: list[Any] | None = None
    ) -> Float[Array, "*sample trial"]:
        if intermediates:
            eps = intermediates[0]
        else:
            noise = value - self._expected(value)
            factor = jnp.broadcast_to(self.cholesky, (*noise.shape, noise.shape[-1]))
            eps = jax.scipy.linalg.solve_triangular(factor, noise[..., None], lower=True)[..., 0]
        log_det = jnp.log(jnp.diagonal(self.cholesky, axis1=-2, axis2=-1)).sum(-1)
        per_bin = -0.5 * (eps**2).sum(-1) - 0.5 * eps.shape[-1] * jnp.log(2 * jnp.pi) - log_det
        return per_bin.sum(-1)

    def _expected(self, path: Array) -> Array:
        """E(x_t | x_{t-1}) of every bin of a path, all at once."""
        later = [leaf[:, 1:] for leaf in (self.gate, self.shift, self.drive.u, self.drive.weights, self.valid)]
        rest, _ = self._step(path[..., :-1, :], *later)
        first = jnp.broadcast_to(self.shift[:, :1], (*rest.shape[:-2], 1, rest.shape[-1]))
        return jnp.concatenate([first, rest], axis=-2)

    def _step(
        self, before: Array, gate: Array, shift: Array, u: Array, weights: Array, valid: Array
    ) -> tuple[Array, Array]:
        """E(x_t | x_{t-1}), and f_k of every state that it is made of."""
        inside = before if self.psi_add else gate * before + shift
        u = jnp.broadcast_to(u, (*inside.shape[:-1], u.shape[-1]))
        means = self.drive.dynamics.means(inside, u)
        mixed = jnp.clip(jnp.einsum("...k,k...d->...d", weights, means), -_FARTHEST, _FARTHEST)
        return jnp.where(valid[..., None], gate * mixed + shift if self.psi_add else mixed, 0.0), means

    def _roll(self, noise: Array) -> tuple[Array, Array]:
        """The path that the deviations of psi from its mean drive, bin after bin, and f_k of each bin (bin first)."""
        start = self.shift[:, 0] + noise[..., 0, :]
        leaves = (self.gate, self.shift, self.drive.u, self.drive.weights, self.valid)
        later = tuple(jnp.moveaxis(leaf[:, 1:], 1, 0) for leaf in leaves)

        def step(before: Array, now: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, Array]]:
            expected, means = self._step(before, *now[1])
            current = expected + now[0]
            return current, (current, means)

        _, (rest, means) = lax.scan(step, start, (jnp.moveaxis(noise[..., 1:, :], -2, 0), later))
        return jnp.concatenate([start[..., None, :], jnp.moveaxis(rest, 0, -2)], axis=-2), means
