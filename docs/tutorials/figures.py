"""Puts the figures that a tutorial drew into its page."""

import base64
import io

from matplotlib import pyplot as plt


def figure(alt: str) -> str:
    """The open figure as an image inside the page, and none open after it.

    Args:
        alt: what is to be seen, for those who can't.
    """
    image = io.BytesIO()
    plt.savefig(image, format="png", dpi=110, bbox_inches="tight")
    plt.close("all")
    return f'<p><img alt="{alt}" src="data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"></p>'
