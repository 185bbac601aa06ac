"""Activity of one trial: observed, reconstructed and generated, as images of all neurons and as curves of a few."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.output.plots.style import (
    INK,
    LINE_HEIGHT,
    MARK,
    SMALL,
    TEXT,
    bin_width,
    legend_above,
    legible,
    make_axes,
    region_ticks,
)

_PIXELS = 1000


def plot_activity(
    seconds: Float[np.ndarray, " bin"],
    panels: Mapping[str, Float[np.ndarray, "bin neuron"]],
    region_sizes: Sequence[int],
    region_names: Sequence[str],
    *,
    unit: str = "signal (a.u.)",
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Images of all neurons of one trial on one colour scale, such as observed, reconstructed and generated.

    Of more neurons than pixels, means of neighbours are drawn. The scale of signals that are never negative is one of
    square roots.

    Args:
        seconds: time of each bin.
        panels: activity by title, the observed first; NaN where missing, which is drawn white.
        region_sizes: neurons of each region.
        region_names: name of each region.
        unit: what the colours mean, with its unit.
        axes: one for each panel; made where not given.
    """
    import matplotlib as mpl
    from matplotlib.colors import PowerNorm

    if axes is None:
        height = max(1.5, LINE_HEIGHT * len(region_sizes) + 0.5)
        axes = make_axes(len(panels), 1, height * len(panels) + 0.6, sharex=True)[:, 0]
    # Of the first panel without its extremes, which one neuron may hold alone.
    shown = next(iter(panels.values()))
    low, high = np.nanquantile(shown, [0.01, 0.99]) if np.isfinite(shown).any() else (0.0, 1.0)
    high = high if high > low else low + 1.0
    half = bin_width(seconds) / 2
    # Missing is white: the middle of this map is grey.
    colours = mpl.colormaps["cividis"].with_extremes(bad="white")
    # Counts of sparse spikes are whole and what is expected of them is far below one: a scale of roots shows both.
    scale = PowerNorm(0.5 if low >= 0 else 1.0, low, high)
    # As many bins as pixels, so that means of neighbouring neurons do not smear over time.
    wide = -(-_PIXELS // len(seconds))
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(
            values.T.repeat(wide, axis=1),
            aspect="auto",
            interpolation="auto",
            cmap=colours,
            norm=scale,
            extent=(seconds[0] - half, seconds[-1] + half, values.shape[1] - 0.5, -0.5),
        )
        ax.set_title(title, loc="left", fontsize=TEXT)
        ax.set_ylabel("neurons")
        legible(ax)
        region_ticks(ax, region_sizes, [f"{name} ({n})" for name, n in zip(region_names, region_sizes, strict=True)])
    axes[-1].set_xlabel("time (s)")
    legible(axes[-1])
    bar = axes[0].figure.colorbar(image, ax=list(axes), extend="both", pad=0.01, aspect=30)
    bar.set_label(unit, fontsize=SMALL + 1)
    bar.ax.tick_params(labelsize=SMALL)
    return axes


def plot_neurons(
    seconds: Float[np.ndarray, " bin"],
    panels: Mapping[str, Float[np.ndarray, "bin neuron"]],
    neurons: Int[np.ndarray, " shown"],
    names: Sequence[str],
    *,
    unit: str = "signal (a.u.)",
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Curves of a few neurons of one trial: the first panel as dots, the others as lines.

    Args:
        seconds: time of each bin.
        panels: activity of all neurons by label, the observed first.
        neurons: indices of those shown.
        names: name of every neuron.
        unit: of the activity.
        axes: one for each neuron shown; made where not given.
    """
    if axes is None:
        axes = make_axes(len(neurons), 1, 1.25 * len(neurons) + 0.8, sharex=True)[:, 0]
    for ax, neuron in zip(axes, neurons, strict=True):
        for index, (label, values) in enumerate(panels.items()):
            if index == 0:
                ax.plot(seconds, values[:, neuron], ".", color="0.5", markersize=3.5, label=label)
            else:
                style = ("-", (0, (4, 2)), (0, (1, 1.5)))[(index - 1) % 3]
                colour = (INK, MARK, "0.65")[(index - 1) % 3]
                ax.plot(seconds, values[:, neuron], color=colour, linestyle=style, label=label)
        ax.set_title(names[int(neuron)], loc="left", fontsize=TEXT)
        ax.set_ylabel(unit.replace(" (", "\n("))
        ax.margins(x=0.01)
        legible(ax)
    legend_above(axes[0], *axes[0].get_legend_handles_labels())
    axes[-1].set_xlabel("time (s)")
    legible(axes[-1])
    return axes
