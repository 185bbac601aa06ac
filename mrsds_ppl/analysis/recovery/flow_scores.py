"""How well the flow of a simulation is recovered: both vector fields in the space of the true latents."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mrsds_ppl.analysis.flow import check_state, inputs_of, mean_maps
from mrsds_ppl.analysis.recovery.alignment import LatentAlignment
from mrsds_ppl.models.mrsds import MRSDS


class FieldCosine(NamedTuple):
    """``pooled``: sum a.b / sqrt(sum a.a sum b.b) over all points; ``mean``: average of the cosines at each point."""

    pooled: float
    mean: float


def change_in_true_latents(
    params: dict[str, Any],
    model: MRSDS,
    alignment: LatentAlignment,
    x_true: Float[np.ndarray, "point true_latent"],
    *,
    state: int,
    u: Any = None,
) -> Float[np.ndarray, "point true_latent"]:
    """Change of all latents in one bin at points given, and returned, in the space of a simulation's true latents.

        x = (x_true - c) A^+,    change = (f_k(x, u) - x) A        for the aligned map x_true = x A + c of each region

    Args:
        params: fitted parameters by site.
        model: the program.
        alignment: of estimated to true latents, by :func:`mrsds_ppl.analysis.recovery.alignment.align_latents`.
        x_true: points, such as the true latents of visited bins.
        state: discrete state k.
        u: inputs (input,), zero unless given.
    """
    check_state(model, state)
    ends = np.cumsum([w.shape[1] for w in alignment.weights])[:-1]
    parts = np.split(x_true, ends, axis=1)
    x = np.concatenate(
        [(p - c) @ np.linalg.pinv(w) for p, w, c in zip(parts, alignment.weights, alignment.offsets, strict=True)],
        axis=1,
    )
    change = np.asarray(mean_maps(params, jnp.asarray(x), inputs_of(model, u), model=model))[state] - x
    pieces = np.split(change, np.cumsum(model.latent_sizes)[:-1], axis=1)
    return np.concatenate([p @ w for p, w in zip(pieces, alignment.weights, strict=True)], axis=1)


def field_cosine(
    true_change: Float[np.ndarray, "point latent"], estimated_change: Float[np.ndarray, "point latent"]
) -> FieldCosine:
    """How alike two vector fields are at the same points, 1 where they point the same way everywhere.

    Args:
        true_change, estimated_change: changes in the same latents. Points with a NaN are left out, and so are points
            where either field is zero, in the mean of cosines.

    Returns:
        NaN where nothing is left.
    """
    kept = np.isfinite(true_change).all(1) & np.isfinite(estimated_change).all(1)
    a, b = true_change[kept].astype(float), estimated_change[kept].astype(float)
    along = (a * b).sum(1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    whole = np.linalg.norm(a) * np.linalg.norm(b)
    moving = lengths > 0
    return FieldCosine(
        pooled=float(along.sum() / whole) if whole > 0 else float("nan"),
        mean=float((along[moving] / lengths[moving]).mean()) if moving.any() else float("nan"),
    )
