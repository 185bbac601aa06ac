"""Random mini-batches and neuron dropout, drawn on the device.

Both make one call for random bits and sort them: each call of JAX's generator adds a tenth of a second or two to the
compilation on a CPU, which a user waits for before the first step.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from mrsds_ppl.backend.sharding import SpreadTrials
from mrsds_ppl.data.trials import Batch

Data: TypeAlias = Batch | SpreadTrials


def draw_batch(key: PRNGKeyArray, data: Data, batch_size: int) -> Batch:
    """`batch_size` different trials of `data`, uniformly at random.

    Args:
        key: random key.
        data: all trials, arrays on the device; spread over several, the batch is, and of the same trials.
        batch_size: number of trials; all trials, in their own order, when there are no more than that.
    """
    num_trials = data.num_trials if isinstance(data, SpreadTrials) else data.y.shape[0]
    if batch_size >= num_trials:
        return data.all_trials() if isinstance(data, SpreadTrials) else data
    trials = jnp.argsort(jax.random.bits(key, (num_trials,), jnp.uint32))[:batch_size]
    if isinstance(data, SpreadTrials):
        return data.some(trials)
    return jax.tree.map(lambda leaf: jnp.take(leaf, trials, axis=0, mode="clip"), data)


def hide_neurons(
    key: PRNGKeyArray,
    visible: Bool[Array, "trial time neuron"],
    region_sizes: tuple[int, ...],
    drop_perc: float,
    dropout_trial_perc: float,
) -> Bool[Array, "trial time neuron"]:
    """`visible` with some neurons of some trials hidden for all their bins.

    A trial is chosen with probability `dropout_trial_perc`; in a chosen trial round(drop_perc N_r) of the N_r neurons
    of each region r are hidden, every set of that size being equally likely.

    Args:
        key: random key.
        visible: what the encoder may see.
        region_sizes: number of neurons of each region, in the order of the neuron axis.
        drop_perc: fraction of each region's neurons to hide, 0 to 1.
        dropout_trial_perc: probability that a trial loses neurons, 0 to 1.
    """
    num_trials, _, num_neurons = visible.shape
    bits = jax.random.bits(key, (num_trials, num_neurons + 1), jnp.uint32)
    sizes = np.asarray(region_sizes)
    counts = np.asarray([round(drop_perc * size) for size in region_sizes])
    region = np.repeat(np.arange(len(sizes)), sizes)

    # One sort for all regions. Each neuron gets an integer: its region in the high bits, a random number, and its own
    # index in the low bits, which breaks ties. After sorting, region r occupies its own stretch of places, and its
    # hidden neurons are those up to the counts[r]-th place of that stretch.
    index_bits = int(num_neurons).bit_length()
    region_bits = (len(sizes) - 1).bit_length()
    fixed = (region.astype(np.uint64) << np.uint64(32 - region_bits)) | np.arange(num_neurons, dtype=np.uint64)
    random = bits[:, :-1] >> np.uint32(index_bits + region_bits)
    order = (random << np.uint32(index_bits)) | jnp.asarray(fixed.astype(np.uint32))[None, :]
    last_place = np.maximum(np.cumsum(sizes) - sizes + counts - 1, 0)
    last_hidden = jnp.sort(order, axis=1)[:, last_place[region]]
    hidden = (order <= last_hidden) & jnp.asarray(counts[region] > 0)[None, :]

    chosen = (bits[:, -1] >> np.uint32(8)).astype(jnp.float32) < dropout_trial_perc * 2.0**24
    return visible & ~(hidden & chosen[:, None])[:, None, :]
