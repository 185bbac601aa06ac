"""Puts the figures that a tutorial drew into its page."""

import io

from matplotlib import pyplot as plt


def figure() -> None:
    """Print every open figure as SVG, and close it."""
    for number in plt.get_fignums():
        text = io.StringIO()
        plt.figure(number).savefig(text, format="svg", bbox_inches="tight")
        print(text.getvalue()[text.getvalue().index("<svg") :])
    plt.close("all")
