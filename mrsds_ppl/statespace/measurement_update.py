"""The measurement update of many Gaussian filters at once, in the information form, with its derivatives.

Components and trials stand last, and broadcast.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from mrsds_ppl.statespace.small_matrices import applied, congruence, inverse, product

# Mean, covariance and log integral.
Updated = tuple[Array, Array, Array]


@jax.custom_jvp
def update(mean: Array, covariance: Array, precision: Array, shift: Array) -> Updated:
    """Posterior of x under N(mean, covariance) and the term h^T x - x^T J x / 2, and the log of the integral."""
    return _updated(mean, covariance, precision, shift)[0]


def _updated(mean: Array, covariance: Array, precision: Array, shift: Array) -> tuple[Updated, Array]:
    """The above, and the inverse of the covariance."""
    known, log_spread = inverse(covariance)
    after, log_after = inverse(known + precision)
    pulled = applied(precision, mean)
    rest = shift - pulled
    moved = applied(after, rest)
    log_mass = (shift * mean).sum(0) - 0.5 * (mean * pulled).sum(0) + 0.5 * (rest * moved).sum(0)
    return (mean + moved, after, log_mass - 0.5 * (log_spread + log_after)), known


@partial(update.defjvp, symbolic_zeros=True)
def _(primals: tuple[Array, ...], tangents: tuple[Array | SymbolicZero, ...]) -> tuple[Updated, Updated]:
    """Of the posterior N(m', P') with l = h - J m' and S = P' P^-1, in fewer products than through the inverses,

    dm' = S (dm + dP l) + P' (dh - dJ m'),              dP' = S dP S^T - P' dJ P',
    d log int = l^T dm + m'^T dh + (l^T dP l - tr((P^-1 - P^-1 P' P^-1) dP) - m'^T dJ m' - tr(P' dJ)) / 2.
    """
    (mean, after, log_mass), known = _updated(*primals)
    _, _, precision, shift = primals
    moved, spread, sharpened, pushed = tangents
    left, kept = shift - applied(precision, mean), product(after, known)
    pull, curve, mass = jnp.zeros_like(mean), jnp.zeros_like(after), jnp.zeros_like(log_mass)
    if not isinstance(moved, SymbolicZero):
        pull, mass = pull + applied(kept, moved), mass + (left * moved).sum(0)
    if not isinstance(spread, SymbolicZero):
        towards = applied(spread, left)
        pull, curve = pull + applied(kept, towards), curve + congruence(kept, spread)
        lost = (known - product(known, kept)) * spread
        mass = mass + 0.5 * ((left * towards).sum(0) - lost.sum((0, 1)))
    if not isinstance(sharpened, SymbolicZero):
        towards = applied(sharpened, mean)
        pull, curve = pull - applied(after, towards), curve - congruence(after, sharpened)
        mass = mass - 0.5 * ((mean * towards).sum(0) + (after * sharpened).sum((0, 1)))
    if not isinstance(pushed, SymbolicZero):
        pull, mass = pull + applied(after, pushed), mass + (mean * pushed).sum(0)
    return (mean, after, log_mass), (pull, curve, mass)
