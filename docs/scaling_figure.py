"""Draws how time and memory grow with the sizes, from the rows of tests/benchmarks/scaling.py:

python docs/scaling_figure.py results/scaling.csv [docs/how/scaling.png]
"""

import runpy
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.ticker import NullLocator

matplotlib.use("agg")
plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})

_SCALING = Path(__file__).parent.parent / "tests" / "benchmarks" / "scaling.py"
_NAMES = {
    "regions": "regions",
    "neurons": "neurons, all regions",
    "bins": "bins of a trial",
    "trials": "trials (of a batch; of a fit)",
    "states": "states",
    "latents": "latents of a region",
}
_LOOKS = {
    "step": ("step", "C0", "o"),
    "step-convolution": ("step, convolution", "C1", "s"),
    "fit": ("fit", "C2", "^"),
}


def main(rows_of: str, out: str) -> None:
    """One column for each size: times above, peak memory below, with a line of slope 1 to compare with."""
    scaling = runpy.run_path(str(_SCALING))
    rows = scaling["read"](Path(rows_of))
    figure, axes = plt.subplots(2, len(_NAMES), figsize=(11, 4.2), sharex="col", sharey="row", layout="constrained")
    for column, (axis, name) in enumerate(_NAMES.items()):
        for kind, (label, color, marker) in _LOOKS.items():
            found = scaling["along"](rows, kind, axis) if axis in scaling["AXES"][kind] else []
            if not found:
                continue
            sizes = [getattr(row.case, axis) for row in found]
            for place, what in zip(axes[:, column], ("seconds", "megabytes"), strict=True):
                values = [getattr(row, what) for row in found]
                place.loglog(sizes, values, color=color, marker=marker, markersize=3.5, linewidth=1, label=label)
                if kind == "step":
                    place.loglog(sizes, [values[-1] * s / sizes[-1] for s in sizes], ":", color="gray", linewidth=1)
        shown = sorted({getattr(row.case, axis) for row in scaling["along"](rows, "step", axis)})
        ticks = shown if len(shown) < 5 else [shown[0], shown[len(shown) // 2], shown[-1]]
        axes[1, column].set_xticks(ticks, [str(tick) for tick in ticks])
        axes[1, column].xaxis.set_minor_locator(NullLocator())
        axes[1, column].set_xlabel(name)
    axes[0, 0].set_ylabel("seconds of computing")
    axes[1, 0].set_ylabel("peak memory, MB")
    axes[0, 0].legend(frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "docs/how/scaling.png")
