"""Dynamics that are linear in their weights: polynomials of degree three in the latents of each region.

    f_k(x, u) = W_k phi(x, u),      phi = (1, phi_1(x^1), ..., phi_R(x^R), u),
    phi_r: x_i, x_i x_j, x_i x_j x_l of region r

W_k[r, s], the rows of region r and the columns of phi_s, are what region s tells region r in state k, as in
:mod:`mrsds_ppl.models.dynamics`, so that messages of networks and of polynomials stand for each other on the latents
that a recording visits. The information about W can be written down; about weights of networks it cannot.
Source: Brunton, Proctor and Kutz (2016), dynamics as sparse combinations of known terms.
"""

from itertools import combinations_with_replacement, pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import Rows, StateDynamics
from mrsds_ppl.start.ascent.polynomials import DEGREE, num_features, num_monomials

_RIDGE = 1e-3


class CubicDynamics(eqx.Module):
    """p(x_t | z_t = k, x_{t-1}, u_t) = N(W_k phi(x_{t-1}, u_t), Q)."""

    weights: Float[Array, "state latent feature"]
    noise: Covariance
    latent_sizes: tuple[int, ...] = eqx.field(static=True)

    def features(self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]) -> Float[Array, "*batch f"]:
        """phi(x, u)."""
        columns, start = [jnp.ones_like(x[..., 0])], 0
        for size in self.latent_sizes:
            region = x[..., start : start + size]
            for degree in range(1, DEGREE + 1):
                for term in combinations_with_replacement(range(size), degree):
                    columns.append(region[..., np.array(term)].prod(-1))
            start += size
        return jnp.concatenate([jnp.stack(columns, axis=-1), u], axis=-1)

    def means(
        self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]
    ) -> Float[Array, "state *batch latents"]:
        """f_k(x, u) for every state k."""
        return jnp.einsum("kif,...f->k...i", self.weights, self.features(x, u))

    def messages(
        self, x: Float[Array, "row latents"], u: Float[Array, "row input"]
    ) -> Float[Array, "state source row latents"]:
        """W_k[:, s] phi_s of each region s, for all latents at once; constants and inputs are left out."""
        phi = self.features(x, u)
        parts = [jnp.einsum("kif,nf->kni", self.weights[..., c], phi[..., c]) for c in self.columns()]
        return jnp.stack(parts, axis=1)

    def rows(self) -> list[slice]:
        """Latents of each region."""
        ends = np.cumsum([0, *self.latent_sizes])
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def columns(self) -> list[slice]:
        """Features of each region."""
        ends = 1 + np.cumsum([0, *(num_monomials(size) for size in self.latent_sizes)])
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]


def cubic_from(dynamics: StateDynamics, latent_sizes: tuple[int, ...], rows: Rows) -> CubicDynamics:
    """The polynomial nearest to given dynamics, by weighted least squares.

    Args:
        dynamics: has ``means(x, u)`` and ``noise``.
        latent_sizes: latents of each region.
        rows: where the two have to agree.
    """
    x, u, weights = rows
    empty = jnp.zeros((weights.shape[-1], x.shape[-1], num_features(latent_sizes, u.shape[-1])), x.dtype)
    cubic = CubicDynamics(empty, dynamics.noise, latent_sizes)
    phi, aim = cubic.features(x, u), dynamics.means(x, u)

    def solve(weight: Array, aim: Array) -> Array:
        weighted = phi * weight[:, None]
        square = weighted.T @ phi + _RIDGE * jnp.eye(phi.shape[-1], dtype=phi.dtype)
        return jax.scipy.linalg.solve(square, weighted.T @ aim, assume_a="pos").T

    found = jax.vmap(solve, (1, 0))(weights, aim)
    return eqx.tree_at(lambda c: c.weights, cubic, found)
