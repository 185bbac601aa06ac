"""Switching limit-cycle oscillators: the hard case. R regions of two latents, K states without any cue.

    x_t^r = m_k^{rr}(x_{t-1}^r) + sum_{s != r} G_k[r, s] c tanh(B_rs x_{t-1}^s) + noise,      k = z_t
    m_k^{rr}(x) = Rot(w_k + v_r) x (1 + a) / (1 + a |x|^2 / rho_k^2)

In state k region r turns by w_k + v_r radians a bin on a circle of radius rho_k, and the messages of the graph G_k are
on. z is a sticky Markov chain that depends on nothing else, so states differ in their dynamics alone.
"""

from functools import partial
from itertools import product
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mrsds_ppl.data.simulate.checks import check_deviations, check_number, check_seeds, check_sizes
from mrsds_ppl.data.simulate.paths import Paths, drive, follow, noisy, offsets_for_mean, rotations, sticky_states
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError

_TURN, _TURN_GAP = 0.2, 0.3  # radians a bin of the slowest state, and from state to state
_DETUNING = 0.03  # radians a bin by which the turns of the regions differ, at most
_PULL = 0.25  # a: how fast the radius returns to the limit cycle
_EMISSIONS = ("poisson", "gaussian")


class OscillatorParameters(NamedTuple):
    """The true dynamics: turn and radius of each state, graph of messages (state, target, source), their maps."""

    turn: Float[np.ndarray, "state region"]
    radius: Float[np.ndarray, " state"]
    graph: Bool[np.ndarray, "state target source"]
    maps: Float[np.ndarray, "target source 2 2"]
    strength: float


class OscillatorWorld(NamedTuple):
    """Everything of a simulation but its signals: dynamics, paths and messages, and what the neurons make of them.

    ``bias`` gives every neuron the mean count. Paths go on beyond ``lengths``.
    """

    dynamics: OscillatorParameters
    paths: Paths
    lengths: Int[np.ndarray, " trial"]
    loadings: Float[np.ndarray, "region neuron 2"]
    bias: Float[np.ndarray, " all_neurons"]

    def drive(self, x: Float[np.ndarray, "*batch latent"]) -> Float[np.ndarray, "*batch all_neurons"]:
        """What latents add to each neuron."""
        return drive(self.loadings, x)


def simulate_oscillators(
    seed: int,
    num_trials: int = 240,
    min_bins: int = 80,
    num_bins: int = 120,
    num_regions: int = 3,
    num_states: int = 3,
    neurons_per_region: int = 40,
    emission: str = "poisson",
    mean_count: float = 0.8,
    loading: float = 0.37,
    observation_noise: float = 1.0,
    state_noise: float = 0.05,
    message_strength: float = 0.2,
    detuning: float = _DETUNING,
    stay: float = 0.95,
    trial_seed: int | None = None,
) -> Trials:
    """Trials of unequal length with the true latents, states and messages.

    Args:
        seed: seed of every draw.
        num_trials: number of trials.
        min_bins, num_bins: shortest and longest length of a trial, whose length is uniform between them.
        num_regions, num_states, neurons_per_region: R, K and neurons.
        emission: ``poisson`` counts with a softplus rate, or ``gaussian``.
        mean_count: expected count of a neuron and bin.
        loading: standard deviation of the loadings.
        observation_noise: standard deviation of Gaussian signals.
        state_noise: standard deviation of the noise of each latent and bin.
        message_strength: c, the largest size of each component of a message.
        detuning: largest v_r, by how much the turns of the regions differ in a state, radians a bin.
        stay: probability of keeping the state from bin to bin.
        trial_seed: other trials of the same regions and neurons, one set for each number.

    Raises:
        ConfigError: an argument that is out of its range (it is named).
    """
    check_sizes(num_trials=num_trials, neurons_per_region=neurons_per_region, num_regions=num_regions)
    check_number("num_states", num_states, Integral, 1, most=8)
    check_number("num_bins", num_bins, Integral, 2)
    check_number("min_bins", min_bins, Integral, 2, most=num_bins)
    check_number("mean_count", mean_count, Real, 1e-3, most=1e3)
    check_number("stay", stay, Real, 0, ", a probability", most=1)
    check_number("message_strength", message_strength, Real, 0)
    check_number("detuning", detuning, Real, 0)
    check_deviations(loading=loading, observation_noise=observation_noise, state_noise=state_noise)
    if emission not in _EMISSIONS:
        raise ConfigError(f"data.simulation.emission: found {emission!r}; allowed: {', '.join(_EMISSIONS)}.")
    check_seeds(seed, trial_seed)
    rng = np.random.default_rng(seed)
    world = draw_world(
        rng,
        num_trials=num_trials,
        min_bins=min_bins,
        num_bins=num_bins,
        num_regions=num_regions,
        num_states=num_states,
        neurons_per_region=neurons_per_region,
        mean_count=mean_count,
        loading=loading,
        state_noise=state_noise,
        message_strength=message_strength,
        detuning=detuning,
        stay=stay,
    )
    if trial_seed is not None:
        rng = np.random.default_rng([seed, trial_seed])
        world = _other_trials(rng, world, min_bins=min_bins, state_noise=state_noise, stay=stay)
    paths, driven = world.paths, world.drive(world.paths.x)
    if emission == "poisson":
        ys = rng.poisson(np.logaddexp(0.0, driven + world.bias)).astype(float)
    else:
        ys = noisy(rng, driven, observation_noise)
    cut = [slice(0, n) for n in world.lengths]
    return Trials.from_arrays(
        [y[c] for y, c in zip(ys, cut, strict=True)],
        region_sizes=[neurons_per_region] * num_regions,
        bin_width=0.05,
        x=[v[c] for v, c in zip(paths.x, cut, strict=True)],
        z=[v[c] for v, c in zip(paths.z, cut, strict=True)],
        messages=[m[c] for m, c in zip(paths.messages, cut, strict=True)],
    )


def draw_parameters(
    rng: np.random.Generator, num_states: int, num_regions: int, strength: float, detuning: float = _DETUNING
) -> OscillatorParameters:
    """States that differ in turn, radius and graph: each has a graph of its own, evenly drawn."""
    states = np.arange(num_states)
    turn = _TURN + _TURN_GAP * states[:, None] + rng.uniform(-detuning, detuning, size=(num_states, num_regions))
    radius = 1.0 + 0.15 * (states - (num_states - 1) / 2) / max(num_states - 1, 1) * 2
    angles = rng.uniform(0, 2 * np.pi, size=(num_regions, num_regions))
    maps = 1.5 * rotations(angles)
    return OscillatorParameters(turn, radius, _graphs(rng, num_states, num_regions), maps, strength)


def draw_world(
    rng: np.random.Generator,
    *,
    num_trials: int,
    min_bins: int,
    num_bins: int,
    num_regions: int,
    num_states: int,
    neurons_per_region: int,
    mean_count: float,
    loading: float,
    state_noise: float,
    message_strength: float,
    detuning: float,
    stay: float,
) -> OscillatorWorld:
    """What the signals are drawn from; arguments as of :func:`simulate_oscillators`."""
    true = draw_parameters(rng, num_states, num_regions, message_strength, detuning)
    paths = _paths(rng, true, sticky_states(rng, num_trials, num_bins, num_states, stay), state_noise)
    lengths = rng.integers(min_bins, num_bins + 1, size=num_trials)
    loadings = rng.normal(scale=loading, size=(num_regions, neurons_per_region, 2))
    return OscillatorWorld(true, paths, lengths, loadings, offsets_for_mean(drive(loadings, paths.x), mean_count))


def _other_trials(
    rng: np.random.Generator, world: OscillatorWorld, *, min_bins: int, state_noise: float, stay: float
) -> OscillatorWorld:
    num_trials, num_bins = world.paths.z.shape
    z = sticky_states(rng, num_trials, num_bins, len(world.dynamics.radius), stay)
    paths = _paths(rng, world.dynamics, z, state_noise)
    return world._replace(paths=paths, lengths=rng.integers(min_bins, num_bins + 1, size=num_trials))


def _graphs(rng: np.random.Generator, num_states: int, num_regions: int) -> Bool[np.ndarray, "state target source"]:
    """Graphs with half of the directed messages each, all different where there are enough of them."""
    edges = [(r, s) for r, s in product(range(num_regions), repeat=2) if r != s]
    graph = np.zeros((num_states, num_regions, num_regions), bool)
    seen: set[tuple[int, ...]] = set()
    for state in range(num_states):
        for _ in range(100):
            chosen = tuple(sorted(rng.permutation(len(edges))[: (len(edges) + 1) // 2]))
            if chosen not in seen:
                break
        seen.add(chosen)
        for edge in chosen:
            graph[state][edges[edge]] = True
    return graph


def sent_messages(
    true: OscillatorParameters, z: Int[np.ndarray, " trial"], x: Float[np.ndarray, "trial region 2"]
) -> Float[np.ndarray, "trial target source 2"]:
    """Messages from x of one bin to the next bin in state z; on the diagonal the change that a region makes itself."""
    turned = np.einsum("brij,brj->bri", rotations(true.turn[z]), x)
    radius = true.radius[z][:, None, None]
    local = turned * (1 + _PULL) / (1 + _PULL * (x**2).sum(-1, keepdims=True) / radius**2)
    sent = true.strength * np.tanh(np.einsum("rsij,bsj->brsi", true.maps, x)) * true.graph[z][..., None]
    regions = np.arange(x.shape[1])
    sent[:, regions, regions] = local - x
    return sent


def _paths(
    rng: np.random.Generator, true: OscillatorParameters, z: Int[np.ndarray, "trial bin"], noise: float
) -> Paths:
    angles = rng.uniform(0, 2 * np.pi, size=(len(z), true.turn.shape[1]))
    start = true.radius[z[:, 0]][:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return follow(rng, start, z, partial(sent_messages, true), noise)
