"""Three recurrent networks that talk: one chaotic, one driven by a sequence, one driven to fixed points.

    tau dr^a/dt = -r^a + tanh(J^a r^a) + sum_{b != a} tanh(W^{ab} r^b) + B^a u          J^a_ij ~ N(0, g_a^2 / units)

r^a are the activities of region a, W^{ab} sparse. An Euler step of dt is a bin, and every unit and bin has independent
noise: r_t = r_{t-1} + (dt / tau) (...) + noise. The sequence is a bump that moves over the units of the second region,
the fixed points are two patterns of the third, one after the other. There is one discrete state: what changes are the
inputs. Source: Perich et al., "Inferring brain-wide interactions using data-constrained recurrent neural network
models" (CURBD), 2020, in the form of Karniol-Tambour et al., ICLR 2024, where networks and messages add up in activity.
"""

from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mrsds_ppl.data.simulate.checks import check_deviations, check_number, check_seeds, check_sizes
from mrsds_ppl.data.simulate.paths import noisy
from mrsds_ppl.data.trials import Trials

REGIONS = ("chaotic", "sequence", "fixed_point")
GAINS = (1.8, 1.5, 1.5)
TAU, STEP = 0.1, 0.01  # seconds: time constant, and Euler step and bin
NUM_BUMPS = 5  # inputs that follow each other in the sequence
NUM_INPUTS = NUM_BUMPS + 2
BUMP_WIDTH = 0.15  # of the bump, in shares of the units
DRIVEN = 0.5  # share of the units of a driven region that the inputs reach


class Networks(NamedTuple):
    """Weights: J of each region, W to a target from a source (zero on its diagonal), B of all units from inputs."""

    recurrent: Float[np.ndarray, "region unit unit"]
    cross: Float[np.ndarray, "target source unit unit"]
    inputs: Float[np.ndarray, "region unit input"]


def simulate_three_rnns(
    seed: int,
    num_trials: int = 64,
    num_bins: int = 300,
    units_per_region: int = 100,
    num_latents: int | None = 10,
    cross_fraction: float = 0.05,
    cross_gain: float = 0.3,
    cross_spread: float = 0.8,
    input_gain: float = 1.0,
    state_noise: float = 0.05,
    observation_noise: float = 0.1,
    warm_up: float = 1.0,
    trial_seed: int | None = None,
) -> Trials:
    """Signals y = r + noise of every unit, with the true latents and messages; z is 0 throughout.

    The latents of a region are the leading principal components of its activity over all trials and bins, with the
    messages and the input's effect projected alike. With ``num_latents=None`` they are the activity itself, and the
    dynamics given above are those of the latents; fewer latents leave out what the other components contribute.

    Args:
        seed: seed of every draw; the networks are the same in every trial.
        num_trials, num_bins, units_per_region: sizes; a bin is 0.01 s.
        num_latents: principal components of each region, or None for its units.
        cross_fraction: share of the weights between two regions that are not zero.
        cross_gain: standard deviation of what a unit sums up from another region whose units have variance one.
        cross_spread: the gain of each pair of regions is drawn uniformly within this share of ``cross_gain``.
        input_gain: size of the inputs, next to the recurrent input, which tanh keeps below one.
        state_noise: standard deviation of the noise of each unit and bin.
        observation_noise: standard deviation of the noise on each signal and bin.
        warm_up: seconds before the first bin that are left out, with the inputs of the first bin; trials start from
            random activities, uniform on (-1, 1).
        trial_seed: other trials of the same networks, one set for each number.

    Raises:
        ConfigError: an argument of the wrong type or out of its range.
    """
    check_sizes(num_trials=num_trials, num_bins=num_bins, units_per_region=units_per_region)
    if num_latents is not None:
        most = min(units_per_region, num_trials * num_bins)
        check_number("num_latents", num_latents, Integral, 1, ", the number of units, or null for all", most=most)
    check_number("cross_fraction", cross_fraction, Real, 0, most=1)
    check_number("cross_gain", cross_gain, Real, 0, most=100)
    check_number("cross_spread", cross_spread, Real, 0, most=1)
    check_number("input_gain", input_gain, Real, 0, most=100)
    check_deviations(state_noise=state_noise, observation_noise=observation_noise)
    check_number("warm_up", warm_up, Real, 0, ", a length of time in seconds", most=100)
    check_seeds(seed, trial_seed)
    rng = np.random.default_rng(seed)
    networks = draw_networks(rng, units_per_region, cross_fraction, cross_gain, cross_spread, input_gain)
    if trial_seed is not None:
        rng = np.random.default_rng([seed, trial_seed])
    u = _inputs(num_bins)
    activity = _paths(rng, networks, u, num_trials, state_noise, round(warm_up / STEP))
    x, axes = principal_components(activity, num_latents)
    messages = np.zeros((num_trials, num_bins, 3, 3, x.shape[-1]))
    for trial, path in enumerate(activity):  # one at a time: those of all units of all trials would take gigabytes
        messages[trial, 1:] = project(sent_messages(networks, path[:-1]), axes)
    return Trials.from_arrays(
        noisy(rng, activity, observation_noise).reshape(num_trials, num_bins, -1),
        np.broadcast_to(u, (num_trials, *u.shape)),
        region_sizes=[units_per_region] * 3,
        region_names=list(REGIONS),
        bin_width=STEP,
        x=x.reshape(num_trials, num_bins, -1),
        z=np.zeros((num_trials, num_bins), int),
        messages=messages,
    )


def draw_networks(
    rng: np.random.Generator,
    num_units: int,
    cross_fraction: float = 0.05,
    cross_gain: float = 0.3,
    cross_spread: float = 0.8,
    input_gain: float = 1.0,
) -> Networks:
    """Normal weights within regions, sparse normal weights between them, inputs by a unit's place in its region."""
    recurrent = rng.normal(size=(3, num_units, num_units)) * (np.array(GAINS) / np.sqrt(num_units))[:, None, None]
    present = rng.random((3, 3, num_units, num_units)) < cross_fraction
    present[np.arange(3), np.arange(3)] = False
    gains = cross_gain * (1 + cross_spread * rng.uniform(-1, 1, size=(3, 3, 1, 1)))
    cross = present * rng.normal(size=present.shape) * gains / np.sqrt(max(cross_fraction * num_units, 1.0))
    place = np.arange(num_units)[:, None] / num_units
    centres = np.concatenate([np.linspace(0, 1, NUM_BUMPS), [0.2, 0.8]])
    bumps = np.exp(-((place - centres) ** 2) / (2 * BUMP_WIDTH**2))
    reached = rng.random((3, num_units)) < DRIVEN
    inputs = np.zeros((3, num_units, NUM_INPUTS))
    inputs[1, :, :NUM_BUMPS] = input_gain * reached[1][:, None] * bumps[:, :NUM_BUMPS]
    # Of the other sign, as published: the sequence excites and the fixed points inhibit.
    inputs[2, :, NUM_BUMPS:] = -input_gain * reached[2][:, None] * bumps[:, NUM_BUMPS:]
    return Networks(recurrent, cross, inputs)


def sent_messages(
    networks: Networks, activity: Float[np.ndarray, "*batch 3 unit"]
) -> Float[np.ndarray, "*batch 3 3 unit"]:
    """Messages (target, source, unit) of the activities of a bin to the next; the own change on the diagonal."""
    sent = (STEP / TAU) * np.tanh(np.einsum("rsij,...sj->...rsi", networks.cross, activity, optimize=True))
    own = np.tanh(np.einsum("rij,...rj->...ri", networks.recurrent, activity, optimize=True)) - activity
    regions = np.arange(3)
    sent[..., regions, regions, :] = (STEP / TAU) * own
    return sent


def input_effect(networks: Networks, u: Float[np.ndarray, "*batch input"]) -> Float[np.ndarray, "*batch 3 unit"]:
    """What the inputs of a bin add to the activities of that bin."""
    return (STEP / TAU) * np.einsum("rnm,...m->...rn", networks.inputs, u)


def principal_components(
    activity: Float[np.ndarray, "trial bin 3 unit"], num_latents: int | None
) -> tuple[Float[np.ndarray, "trial bin 3 latent"], Float[np.ndarray, "3 latent unit"]]:
    """Leading components of each region, largest first, and their axes; without a number the activity itself.

    The mean over trials and bins is taken off, and the largest weight of each axis is positive.
    """
    num_units = activity.shape[-1]
    if num_latents is None:
        return activity, np.tile(np.eye(num_units), (3, 1, 1))
    centred = activity - activity.mean((0, 1))
    _, vectors = np.linalg.eigh(np.einsum("tbrn,tbrm->rnm", centred, centred, optimize=True))
    axes = np.swapaxes(vectors[..., ::-1][..., :num_latents], 1, 2)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(-1, keepdims=True), -1)
    axes = axes * np.sign(largest)
    return np.einsum("rdn,tbrn->tbrd", axes, centred), axes


def project(
    messages: Float[np.ndarray, "*batch 3 3 unit"], axes: Float[np.ndarray, "3 latent unit"]
) -> Float[np.ndarray, "*batch 3 3 latent"]:
    """Messages to the units of a target as messages to its latents."""
    return np.einsum("rdn,...rsn->...rsd", axes, messages, optimize=True)


def _inputs(num_bins: int) -> Float[np.ndarray, "bin input"]:
    """Bumps in time that follow each other in the first half, then the last one held; one of two patterns is on.

    As published, the sequence stops before the middle of the trial and the fixed point moves after it.
    """
    time = np.arange(num_bins)[:, None] / num_bins
    stop, move = 0.4, 0.6
    peaks = np.linspace(0, stop, NUM_BUMPS)
    sequence = np.exp(-((np.minimum(time, stop) - peaks) ** 2) / (2 * (stop / NUM_BUMPS) ** 2))
    return np.concatenate([sequence, time < move, time >= move], axis=1)


def _paths(
    rng: np.random.Generator,
    networks: Networks,
    u: Float[np.ndarray, "bin input"],
    num_trials: int,
    noise: float,
    num_before: int,
) -> Float[np.ndarray, "trial bin 3 unit"]:
    num_units = networks.recurrent.shape[-1]
    driven = input_effect(networks, u)
    path = np.empty((num_trials, len(u), 3, num_units))

    def step(before: Float[np.ndarray, "trial 3 unit"], t: int) -> Float[np.ndarray, "trial 3 unit"]:
        change = sent_messages(networks, before).sum(2) + driven[t]
        return before + change + rng.normal(scale=noise, size=before.shape)

    now = rng.uniform(-1, 1, size=(num_trials, 3, num_units))
    for _ in range(num_before):
        now = step(now, 0)
    path[:, 0] = now
    for t in range(1, len(u)):
        path[:, t] = now = step(now, t)
    return path
