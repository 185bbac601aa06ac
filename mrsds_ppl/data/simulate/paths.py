"""What simulators share: paths, states that stay, and the signals of neurons that see the latents."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_MOST_NEWTON_STEPS = 100
# Of states (trial,) and latents (trial, region, latent); (trial, target, source, latent), own changes on the diagonal.
Messages = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Paths(NamedTuple):
    """Latents, states, and messages of bin t, which go from t-1 to t in state z_t."""

    x: Float[np.ndarray, "trial bin latents"]
    z: Int[np.ndarray, "trial bin"]
    messages: Float[np.ndarray, "trial bin target source latent"]


def follow(
    rng: np.random.Generator,
    start: Float[np.ndarray, "trial region latent"],
    z: Int[np.ndarray, "trial bin"],
    told: Messages,
    noise: float,
    effect: Float[np.ndarray, "trial bin region latent"] | float = 0.0,
) -> Paths:
    """x_t = x_{t-1} + sum_s message_t[:, s] + effect_t + noise, in states that depend on nothing else.

    Args:
        rng: draws the noise.
        start: latents of the first bin.
        z: the states.
        told: messages to the next bin.
        noise: standard deviation of the noise of each latent and bin.
        effect: what inputs add.
    """
    (num_trials, num_bins), (num_regions, size) = z.shape, start.shape[1:]
    x = np.zeros((num_trials, num_bins, num_regions, size))
    messages = np.zeros((num_trials, num_bins, num_regions, num_regions, size))
    x[:, 0], added = start, np.broadcast_to(effect, x.shape)
    for t in range(1, num_bins):
        messages[:, t] = told(z[:, t], x[:, t - 1])
        change = messages[:, t].sum(2) + added[:, t]
        x[:, t] = x[:, t - 1] + change + rng.normal(scale=noise, size=change.shape)
    return Paths(x.reshape(num_trials, num_bins, -1), z, messages)


def drive(
    loadings: Float[np.ndarray, "region neuron latent"], x: Float[np.ndarray, "*batch latents"]
) -> Float[np.ndarray, "*batch all_neurons"]:
    """What latents add to each neuron, which sees those of its region; the regions have equally many."""
    by_region = x.reshape(*x.shape[:-1], len(loadings), -1)
    return np.einsum("...rd,rnd->...rn", by_region, loadings).reshape(*x.shape[:-1], -1)


def noisy(rng: np.random.Generator, signals: Float[np.ndarray, "*batch"], noise: float) -> Float[np.ndarray, "*batch"]:
    """Signals with independent normal noise of this standard deviation."""
    return signals + rng.normal(scale=noise, size=signals.shape)


def sticky_states(
    rng: np.random.Generator, num_trials: int, num_bins: int, num_states: int, stay: float
) -> Int[np.ndarray, "trial bin"]:
    """States that are kept from bin to bin with this probability and else change to any other one."""
    z = np.zeros((num_trials, num_bins), int)
    z[:, 0] = rng.integers(0, num_states, size=num_trials)
    for t in range(1, num_bins):
        leave = rng.random(num_trials) > stay
        jump = rng.integers(1, max(num_states, 2), size=num_trials) % num_states
        z[:, t] = np.where(leave, (z[:, t - 1] + jump) % num_states, z[:, t - 1])
    return z


def offsets_for_mean(driven: Float[np.ndarray, "trial bin neuron"], mean_count: float) -> Float[np.ndarray, " neuron"]:
    """Offsets that give every neuron the mean count, by Newton's method.

    The mean rate is convex in the offset, and by Jensen's inequality too large at the first one, so that every step
    comes nearer to the root from above.
    """
    # The inverse of softplus, for counts of any size.
    offset = mean_count + np.log(-np.expm1(-mean_count)) - driven.mean((0, 1))
    for _ in range(_MOST_NEWTON_STEPS):
        growth = np.exp(-np.abs(total := driven + offset))
        rate, slope = np.maximum(total, 0.0) + np.log1p(growth), np.where(total > 0, 1.0, growth) / (1.0 + growth)
        step = (rate.mean((0, 1)) - mean_count) / slope.mean((0, 1))
        offset = offset - step
        if np.abs(step).max() < 1e-9:
            break
    return offset


def rotations(angle: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 2 2"]:
    """Matrices that turn by these angles in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
