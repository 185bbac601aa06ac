"""What would be fitted, in words, and what its numbers depend on."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from mrsds_ppl import __version__
from mrsds_ppl.backend.device import device_line
from mrsds_ppl.backend.side_by_side import MOST_THREADS, cores
from mrsds_ppl.backend.speed import slowness
from mrsds_ppl.build import make_guide, make_model
from mrsds_ppl.config.cost import cost_of
from mrsds_ppl.config.fit_sizes import sizes_of
from mrsds_ppl.config.loading import RunConfig, ignored_keys
from mrsds_ppl.config.names import is_own_guide
from mrsds_ppl.data.check import recording_notes
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import listed
from mrsds_ppl.models import EMISSIONS
from mrsds_ppl.train.progress import rounded_time


def _neurons_of_trials(trials: Trials) -> int | np.ndarray:
    """Neurons that each trial was recorded of."""
    if trials.own_neurons is None:
        return trials.num_neurons
    return (trials.own_neurons != "").sum(1)[trials.session_numbers]


def _sessions(trials: Trials) -> list[str]:
    """A line for joined sessions, whose regions below are those of the largest."""
    each = [(name, part.num_trials, trials.of_session(name)) for name, part in trials.by_session().items() if name]
    if not each:
        return []
    listed_each = ", ".join(f"{name} ({count} trials, {own.num_neurons} neurons)" for name, count, own in each)
    return [f"sessions: {listed_each}; of each region the most neurons that one of them has:"]


class _Form(NamedTuple):
    """Shapes of the networks of program and guide, and latents of each region."""

    networks: PyTree
    latent_sizes: tuple[int, ...]


def _form(config: RunConfig, split: Split) -> _Form:
    """Program and guide as they would be made."""

    def made() -> _Form:
        model = make_model(config, split.train, split.train.num_trials)
        guide = make_guide(config, model)
        return _Form((model.networks, getattr(guide, "recognition", None)), model.latent_sizes)

    # Nothing is drawn or compiled for shapes alone; a guide of the user's may want numbers.
    return made() if is_own_guide(config.inference.guide) else eqx.filter_eval_shape(made)


def describe(config: RunConfig, trials: Trials, split: Split) -> str:
    """Shapes, regions, parameters and cost of a fit, in a few lines."""
    form = _form(config, split)
    count = sum(leaf.size for leaf in jax.tree.leaves(form.networks) if hasattr(leaf, "size"))
    regions = ", ".join(
        f"{name} ({size} neurons)" for name, size in zip(trials.region_names, trials.region_sizes, strict=True)
    )
    lengths = trials.lengths
    missing = f"{1 - trials.observed.sum() / (lengths * _neurons_of_trials(trials)).sum():.1%} missing"
    silent = trials.ids[~trials.observed.any((1, 2))]
    if len(silent):
        missing += f", trials without any value: {', '.join(map(str, silent))}"
    batch = min(config.training.optimiser.batch_size, split.train.num_trials)
    return "\n".join(
        [
            f"trials: {split.train.num_trials} for training, {split.test.num_trials} for test; "
            f"{lengths.min()} to {lengths.max()} bins of {trials.bin_width:g} s; {trials.num_inputs} inputs",
            *_sessions(trials),
            f"regions: {regions}; {missing}",
            f"model: {config.model.num_states} states, latents {list(form.latent_sizes)}, "
            f"{emissions_phrase(config, trials)}, {count:,} parameters",
            f"inference: {config.inference.guide} guide, {config.inference.encoder_phrase}, "
            f"{config.training.optimiser.num_steps} steps of {batch} trials",
            cost_line(config, split),
        ]
    )


def cost_line(config: RunConfig, split: Split) -> str:
    """Time and memory that a fit is estimated to take on a CPU of this machine, with nothing else to do.

    Args:
        config: with the choice of the start in place of ``auto``.
        split: the trials.
    """
    sizes = sizes_of(config, split)
    cost, count = cost_of(sizes), len(cores())
    seconds = slowness() * cost.seconds
    # Some stages keep every core busy, others little more than one.
    shared = "" if count == 1 else f", {rounded_time(seconds / min(count, MOST_THREADS))} at best on {count} cores"
    return (
        f"cost: about {rounded_time(seconds)} of computing on a CPU for at most {sizes.steps} steps{shared}; "
        f"about {cost.megabytes / 1000:.1f} GB of memory"
    )


def emissions_phrase(config: RunConfig, trials: Trials) -> str:
    """The laws of the signals, with what the recording says of them."""
    said = f"{config.model.emissions.phrase} emissions"
    if not trials.holds_counts:
        return said
    if config.model.emissions.laws == ("poisson",) and not (trials.y > 1).any():
        return f"{said} (all signals are counts of at most one a bin, for which there is bernoulli)"
    return f"{said} (all signals are counts)"


def versions(device: jax.Device) -> dict[str, str]:
    """Versions of what numbers depend on."""
    from importlib.metadata import version

    names = ("jax", "jaxlib", "numpyro", "equinox", "optax", "numpy", "scipy")
    return {"mrsds-ppl": __version__, **{n: version(n) for n in names}, "device": device_line(device)}


def notes(config: RunConfig, trials: Trials, split: Split) -> list[str]:
    """What a fit reads otherwise than the configuration says it, or the recording than it seems to mean."""
    found = [*config.notes, *trials.dataset.attrs.get("notes", [])]
    width = trials.bin_width
    if trials.starts is not None:
        found.append(
            f"one recording in {trials.num_trials} pieces of {trials.num_bins} bins ({trials.num_bins * width:g} s), "
            f"each of which begins anew; {split.test.num_trials} are held out in blocks, {split.gap.num_trials} beside "
            "these are left out"
        )
    if width > 1 and trials.holds_counts:
        found.append(f"bin_width is in seconds; {width:g} looks like milliseconds, which would be {width / 1000:g}")
    if trials.holds_counts and not all(EMISSIONS[law].counts for law in config.model.emissions.laws):
        found.append(
            f"all signals are counts, but emissions are {config.model.emissions.phrase}; model.emissions.dist: poisson "
            "is for counts"
        )
    if left_out := trials.dataset.attrs.get("left_out"):
        found.append(f"neurons {listed(left_out)}: left out")
    sizes = config.model.latent_sizes
    each = [sizes] * len(trials.region_sizes) if isinstance(sizes, int) else list(sizes)
    pooled = config.model.dynamics.single_region_latent
    if len(each) == len(trials.region_sizes):  # other sizes are refused where the model is made
        found += recording_notes(split.train, [sum(each)] if pooled else each)
    for key in ignored_keys(config):
        if key == "data.data_path":
            found.append(
                f"the trials are simulated, as data.data_source is {config.data.data_source}; "
                f"--set data.data_source=mydata takes those of {config.data.data_path}"
            )
        else:
            found.append(f"{key} has no effect on this run")
    return found
