"""The batch of arrays that programs and guides take."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Arrays of some trials, of NumPy on the host or of JAX: a pytree.

    y (trial, time, neuron), zero where not observed; u (trial, time, input); observed and visible (trial, time,
    neuron): what the likelihood scores and what an encoder may see; lengths (trial,): valid bins; stage (trial, time,
    stage), one-hot; number (trial,): the number of each trial in its recording, by which a table of trials is read.
    Inputs and stages may have width 0. session (trial,): the number of each trial's session, where several were joined.
    """

    y: Any
    u: Any
    observed: Any
    visible: Any
    lengths: Any
    stage: Any
    number: Any
    session: Any = None
