"""Switching Lotka-Volterra: two regions of one latent each, prey and predator, whose regime switches in every trial.

    dx/dt =  alpha x - beta x y        dy/dt = delta x y - gamma y

Regime 0 has (alpha, beta, gamma, delta) = (2/3, 4/3, 1, 1); regime 1 has (0.9, 1.1, 0.8, 1.2) and runs backwards in
time. Source: Karniol-Tambour et al., ICLR 2024, section 5.
"""

from numbers import Integral, Real

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.data.simulate.checks import check_deviations, check_flag, check_number, check_seeds, check_sizes
from mrsds_ppl.data.simulate.paths import drive, noisy
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError

PARAMETERS = np.array([[2 / 3, 4 / 3, 1.0, 1.0], [0.9, 1.1, 0.8, 1.2]])
DIRECTION = np.array([1.0, -1.0])


def simulate_lotka_volterra(
    seed: int,
    num_trials: int = 200,
    num_bins: int = 150,
    neurons_per_region: int = 50,
    observation_noise: float = 0.5,
    state_noise: float = 1.5e-4,
    steps_per_bin: int = 500,
    step: float = 0.001,
    random_first_state: bool = False,
    cue: bool = False,
) -> Trials:
    """Signals y = C x + noise of two regions, with the true latents and states.

    Args:
        seed: seed of every draw.
        num_trials, num_bins, neurons_per_region: sizes.
        observation_noise: standard deviation of the noise of each neuron and bin.
        state_noise: standard deviation of noise added to the latents of each bin, as published.
        steps_per_bin, step: Euler steps of a bin and their length in units of time.
        random_first_state: start in a random regime; as published, every trial starts in regime 0.
        cue: two inputs that are one in the bin in which their regime begins. Without, u is empty.

    Raises:
        ConfigError: an argument of the wrong type, a size below one, too few bins for three switches, a negative noise,
            or a step that is not positive or so long that the latents diverge.
    """
    check_sizes(num_trials=num_trials, neurons_per_region=neurons_per_region, steps_per_bin=steps_per_bin)
    check_number("num_bins", num_bins, Integral, 20, " to hold three switches")
    check_deviations(observation_noise=observation_noise, state_noise=state_noise)
    check_number("step", step, Real, 0, ", a length of time")
    for name, flag in {"random_first_state": random_first_state, "cue": cue}.items():
        check_flag(name, flag)
    if step == 0:
        raise ConfigError("data.simulation.step: found 0, need a positive length of time.")
    check_seeds(seed)
    rng = np.random.default_rng(seed)
    z = _regimes(rng, num_trials, num_bins, random_first_state)
    with np.errstate(over="ignore", invalid="ignore"):
        x = euler(z, np.ones(2), steps_per_bin, step)
    # The flow keeps both latents positive and bounded; a path that does not has left it.
    if not (np.isfinite(x).all() and x.min() > 0):
        raise ConfigError(f"data.simulation.step: found {step}, with which Euler's method diverges; shorten it.")
    x = x + rng.normal(scale=state_noise, size=x.shape)
    onsets = np.diff(z, axis=1, prepend=-1) != 0
    us = (onsets[..., None] & (z[..., None] == np.arange(2))).astype(np.float32) if cue else None
    return Trials.from_arrays(
        noisy(rng, drive(rng.normal(size=(2, neurons_per_region, 1)), x), observation_noise),
        us,
        region_sizes=[neurons_per_region] * 2,
        region_names=["prey", "predator"],
        bin_width=steps_per_bin * step,
        x=x,
        z=z,
    )


def euler(
    z: Int[np.ndarray, "trial bin"], first: Float[np.ndarray, "2"], steps_per_bin: int, step: float
) -> Float[np.ndarray, "trial bin 2"]:
    """Latents at the start of each bin, by Euler steps of all trials at once; the regime of bin t leads into it.

    Bin 0 is ``first``; the steps from bin t-1 to bin t obey the regime z_t, as in p(x_t | z_t, x_{t-1}).
    """
    prey, predator = (np.full(len(z), v) for v in first)
    path = np.empty((*z.shape, 2))
    path[:, 0] = first
    for t in range(1, z.shape[1]):
        growth, predation, death, gain = step * PARAMETERS[z[:, t]].T * DIRECTION[z[:, t]]
        for _ in range(steps_per_bin):
            meeting = prey * predator
            prey, predator = (
                prey + growth * prey - predation * meeting,
                predator + gain * meeting - death * predator,
            )
        path[:, t, 0], path[:, t, 1] = prey, predator
    return path


def _regimes(
    rng: np.random.Generator, num_trials: int, num_bins: int, random_first: bool
) -> Int[np.ndarray, "trial bin"]:
    """States with 1 to 3 switches a trial, each regime lasting at least a tenth of the trial."""
    gap = num_bins // 10
    z = np.zeros((num_trials, num_bins), int)
    for trial in range(num_trials):
        count = rng.integers(1, 4)
        # Sorted uniform draws on the bins left after the gaps, with the gaps put back between them.
        free = np.sort(rng.integers(0, num_bins - gap * (count + 1) + 1, size=count))
        for switch in free + gap * np.arange(1, count + 1):
            z[trial, switch:] ^= 1
    return z ^ rng.integers(0, 2, size=(num_trials, 1)) if random_first else z
