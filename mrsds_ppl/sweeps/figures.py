"""The figure of a sweep: evidence of held-out trials by numbers of states and latents."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from mrsds_ppl.output.plots.style import INK, MARK, SMALL, legend_above, legible, line_style, make_axes, state_colour
from mrsds_ppl.sweeps.choice import choose, compared, pooled_evidence, shape_named

if TYPE_CHECKING:
    import matplotlib.axes

_WIDTH = 0.3  # of the space between two numbers of states, over which those of latents are spread


def plot_evidence(cells: xr.Dataset, axes: np.ndarray | None = None) -> np.ndarray:
    """Evidence of held-out trials by number of states, a line for each number of latents, as differences to the best.

    Bars are standard errors of the differences of the same trials; small dots are single seeds.

    Args:
        cells: see :class:`mrsds_ppl.sweeps.results.Sweep`.
        axes: one; made where not given.
    """
    axes = make_axes(1, 1, 3.4) if axes is None else axes
    ax: matplotlib.axes.Axes = axes.flat[0]
    table, choice = compared(cells), choose(cells)
    states, sizes = table.num_states.values, table.latent_size.values.tolist()
    places = np.arange(len(states))
    best = None if choice is None else shape_named(cells, choice.best)
    for number, size in enumerate(sizes):
        shift = (number / max(len(sizes) - 1, 1) - 0.5) * _WIDTH if len(sizes) > 1 else 0.0
        one = table.sel(latent_size=size)
        ax.errorbar(
            places + shift,
            one.difference.values,
            one.difference_error.values,
            color=state_colour(number),
            linestyle=line_style(number),
            marker="o",
            markersize=5,
            capsize=3,
            label=f"d={size}",
        )
        if best is not None:
            every = cells.evidence.sel(latent_size=size) - pooled_evidence(cells).sel(best._asdict())
            seeds = every.mean("trial", skipna=False).transpose("num_states", "seed").values
            ax.plot(places + shift, seeds, ".", color=state_colour(number), markersize=4, alpha=0.6)
        if choice is not None and (chosen := shape_named(cells, choice.chosen)).latent_size == size:
            at = int(np.flatnonzero(states == chosen.num_states)[0])
            value = float(one.difference.sel(num_states=chosen.num_states))
            ax.plot(at + shift, value, "o", markersize=13, mfc="none", mec=MARK, mew=1.6)
            ax.annotate("chosen", (at + shift, value), (11, 6), "data", "offset points", fontsize=SMALL)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks(places, [str(k) for k in states])
    ax.set_xlabel("discrete states K")
    ax.set_ylabel("evidence, to the best\n(nats a trial)")
    legible(ax)
    legend_above(ax, *ax.get_legend_handles_labels())
    return axes
