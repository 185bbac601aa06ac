"""The batch of arrays that programs and guides take."""

from typing import NamedTuple

import jax
import numpy as np

# On the host, or on a device.
Values = np.ndarray | jax.Array


class Batch(NamedTuple):
    """Arrays of some trials, a JAX pytree.

    y (trial, time, neuron), zero where not observed; u (trial, time, input); observed and visible (trial, time,
    neuron): what the likelihood scores and what an encoder may see; lengths (trial,): valid bins; stage (trial, time,
    stage), one-hot; number (trial,): the number of each trial in its recording, by which a table of trials is read.
    Inputs and stages may have width 0.
    """

    y: Values
    u: Values
    observed: Values
    visible: Values
    lengths: Values
    stage: Values
    number: Values
