"""How far restarts of a fit agree, for a report: with other seeds, are there the same states and latents?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.output.report.page import Section, Table


class Posterior(NamedTuple):
    """Of the test trials by one restart."""

    x: Float[np.ndarray, "trial bin latent"]
    z_prob: Float[np.ndarray, "trial bin state"]


class Restarts(NamedTuple):
    """Bounds of all restarts on held-out trials, which of them is kept, and how far each agrees with it.

    ``same_state``: share of bins whose likeliest state is the same once states are matched. ``r2``: of the kept
    latents after a linear map of each region, mean over latents. NaN where that is not known.
    """

    bounds: Float[np.ndarray, " restart"]
    kept: int
    same_state: Float[np.ndarray, " restart"]
    r2: Float[np.ndarray, " restart"]


def compare_restarts(
    bounds: Float[np.ndarray, " restart"],
    kept: int,
    posteriors: Sequence[Posterior | None],
    lengths: Int[np.ndarray, " trial"],
    latent_sizes: Sequence[int],
) -> Restarts:
    """Compare every restart with the one that is kept.

    Args:
        bounds: in nats per observed value.
        kept: its number.
        posteriors: of each restart; None where there is none. Empty where the run holds only the kept one.
        lengths: bins of each trial.
        latent_sizes: of each region.
    """
    same, r2 = np.full((2, len(bounds)), np.nan)
    if posteriors and (own := posteriors[kept]) is not None:
        for number, other in enumerate(posteriors):
            if other is not None and number != kept:
                same[number] = match_states(own.z_prob.argmax(-1), other.z_prob, lengths).accuracy
                r2[number] = np.nanmean(align_latents(own.x, other.x, lengths, latent_sizes).r2)
    return Restarts(bounds, kept, same, r2)


def restarts_section(found: Restarts) -> Section:
    """A table of the restarts."""
    text = [
        "The same fit from other seeds. What returns in restarts whose bounds are about as high is a finding of the "
        "recording; what does not is one of many descriptions that fit as well."
    ]
    head = ["Restart", "bound of held-out training trials (nats per observed value)"]
    rows = [
        [f"{number}{' (kept)' if number == found.kept else ''}", f"{bound:.5f}"]
        for number, bound in enumerate(found.bounds)
    ]
    if np.isfinite(found.r2).any():
        head += ["test bins in the same state", "R² of the kept latents"]
        text.append(
            "States are matched to those of the kept restart, and latents mapped to its own by a linear map of each "
            "region. All restarts are taken as joint training left them."
        )
        for row, same, r2 in zip(rows, found.same_state, found.r2, strict=True):
            row += [f"{same:.1%}" if np.isfinite(same) else "-", f"{r2:.3f}" if np.isfinite(r2) else "-"]
    else:
        text.append("The run does not hold the other restarts, so how far they agree is not known: save_to keeps them.")
    return Section("restarts", "Whether restarts agree", text, [Table(head, rows)])
