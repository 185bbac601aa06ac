"""How well the messages of a simulation are recovered."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mrsds_ppl.analysis.recovery.alignment import LatentAlignment
from mrsds_ppl.errors import RunError


class MessageScores(NamedTuple):
    """Estimated messages against true ones, in the space of the true latents.

    ``r2[r, s]`` over the latents of the target; NaN where the true message does not vary. ``r2_cross`` pools all but
    the diagonal, ``r2_local`` the diagonal. ``true_matrix`` and ``estimated_matrix``: mean norms in the bins of each
    true state; ``cosine`` between them for each state, diagonal dropped. ``absent_ratio``: mean estimated norm of the
    messages that a state does not send, over that of those it sends; NaN if there are none of one kind.
    """

    r2: Float[np.ndarray, "target source"]
    r2_cross: float
    r2_local: float
    true_matrix: Float[np.ndarray, "state target source"]
    estimated_matrix: Float[np.ndarray, "state target source"]
    cosine: Float[np.ndarray, " state"]
    absent_ratio: float


def message_scores(
    true: Float[np.ndarray, "trial time target source true_latent"],
    estimated: xr.DataArray,
    alignment: LatentAlignment,
    z_true: Int[np.ndarray, "trial time"] | None = None,
    *,
    centre: bool = True,
) -> MessageScores:
    """Recovery of the messages of a simulation, averaged over draws.

    Where the latents of region r align as x_true = x A_r + c_r, its messages do as message A_r.

    Args:
        true: messages of the simulation; NaN in bins that are not compared. Later sources that only the estimate has,
            such as inputs whose effect the simulation does not tell, are left out.
        estimated: of :func:`mrsds_ppl.analysis.communication.posterior_messages`, averaged over states.
        alignment: of the latents of the same trials, by :func:`mrsds_ppl.analysis.recovery.alignment.align_latents`.
        z_true: true states; bins with a negative state are not compared.
        centre: subtract from both messages their mean in each true state, since the constants of additive messages
            cannot be known.

    Raises:
        RunError: shapes do not fit one another.
    """
    mean = estimated.mean("draw") if "draw" in estimated.dims else estimated
    found = mean.transpose("trial", "time", "target", "source", "latent").values
    regions, sources = len(alignment.weights), true.shape[3]
    if found.shape[:2] != true.shape[:2] or not found.shape[2] == true.shape[2] == regions <= sources <= found.shape[3]:
        raise RunError(
            f"Messages cannot be compared: true ones of shape {true.shape}, estimated ones of shape {found.shape}, "
            f"latents aligned for {regions} regions. Trials, bins and regions must be the same."
        )
    compared = np.isfinite(true).any((2, 3, 4)) & np.isfinite(found).any((2, 3, 4))
    compared[:, 0] = False
    state = np.zeros(compared.shape, int) if z_true is None else z_true
    compared &= state >= 0
    target, state = np.nan_to_num(true[compared].astype(float)), state[compared]
    estimate = np.zeros_like(target)
    for region, weights in enumerate(alignment.weights):
        size, true_size = weights.shape
        estimate[:, region, :, :true_size] = found[compared][:, region, :sources, :size] @ weights
    members = np.stack([state == k for k in range(int(state.max(initial=0)) + 1)])
    sent = _mean_norms(target, members) > 1e-9
    if centre:
        for some in members:
            target[some] -= target[some].mean(0)
            estimate[some] -= estimate[some].mean(0)
    residual = ((target - estimate) ** 2).sum((0, 3))
    spread = ((target - target.mean(0)) ** 2).sum((0, 3))
    own = np.eye(regions, sources, dtype=bool)
    true_matrix, matrix = _mean_norms(target, members), _mean_norms(estimate, members)
    others, guessed = true_matrix[:, ~own], matrix[:, ~own]
    length = np.linalg.norm(others, axis=1) * np.linalg.norm(guessed, axis=1)
    present = sent[:, ~own]
    return MessageScores(
        r2=1.0 - _ratio(residual, spread),
        r2_cross=1.0 - _share(residual[~own].sum(), spread[~own].sum()),
        r2_local=1.0 - _share(residual[own].sum(), spread[own].sum()),
        true_matrix=true_matrix,
        estimated_matrix=matrix,
        cosine=_ratio((others * guessed).sum(1), length),
        absent_ratio=_share(_mean(guessed[~present]), _mean(guessed[present])),
    )


def _mean_norms(messages: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(state, target, source) from (row, target, source, latent) and (state, row); NaN for a state without rows."""
    total = np.einsum("kn,nrs->krs", members, np.linalg.norm(messages, axis=-1))
    return _ratio(total, np.broadcast_to(members.sum(1)[:, None, None], total.shape))


def _mean(values: np.ndarray) -> float:
    """NaN, without a warning, where nothing is averaged."""
    return float(values.mean()) if values.size else float("nan")


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
