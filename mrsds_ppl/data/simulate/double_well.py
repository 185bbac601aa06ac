"""The double well: an accumulator of evidence, and a controller that sends both regions back when a decision is due.

    x_t = x_{t-1} + m_k(x_{t-1}) + b_k u_t + noise,      k = z_t,      x = (a, c): two latents of each region

    state 0   accumulator  (a_1 - a_1^3, -a_2) r            controller   r' grad h(c) + (g a_2, 0)
    state 1   accumulator  (home - a) q + (0, g' |c_1 - l|)   controller  -r' grad h(c) - (p, 0)

with h(c) = c_1 exp(-|c|^2), whose gradient is zero at c = (+-1/sqrt 2, 0). In state 0 the accumulator has the stable
fixed points -1 and 1 and between them the unstable one 0, evidence u decides between them, and the message g a_2 of
the accumulator starts the controller, which rests on the right. In state 1 the field of the controller is reversed and
it rests on the left; its message, which fades as it comes home, helps the accumulator home to (0, 1/2).

    p(z_t = 1 | z_{t-1} = 0, x_{t-1}) = sigmoid(s (c_1 - w))
    p(z_t = 0 | z_{t-1} = 1, x_{t-1}) = sigmoid(-s (c_1 + w))

So the controller switches both regions near its fixed points. Source: Karniol-Tambour et al., ICLR 2024, section 5.
Unlike there, the return ends by a law of the controller too, it goes straight home, and the noise has one size.
"""

from numbers import Integral

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from mrsds_ppl.data.simulate.checks import check_deviations, check_flag, check_number, check_seeds, check_sizes
from mrsds_ppl.data.simulate.paths import Paths, drive, noisy
from mrsds_ppl.data.trials import Trials

STEP = 0.1  # units of time of a bin, one Euler step
WELL_RATE = STEP  # r
FIELD_RATE = 0.45 * STEP  # r'
RETURN_RATE = 0.8 * STEP  # q
RETURN_PUSH = 0.15 * STEP  # p
TO_CONTROLLER = 0.6 * STEP  # g
TO_ACCUMULATOR = 0.25 * STEP  # g'
EVIDENCE_RATE = STEP  # b_0; b_1 is zero
HOME = np.array([0.0, 0.5])
LEFT = -np.sqrt(0.5)  # l
SWITCH_AT, SWITCH_SLOPE = 0.6, 40.0  # w, s
FIRST_PULSE, END_OF_PULSES = 3, 20  # bins of a trial that have evidence
PULSE = 0.55  # u of one pulse, negative on the left
NUM_PULSES = 25.0  # expected number of a trial
OWN_SHARE = (0.5, 0.8)  # share of them on the side that the evidence favours, from hard to easy trials


def simulate_double_well(
    seed: int,
    num_trials: int = 450,
    num_bins: int = 75,
    neurons_per_region: int = 50,
    observation_noise: float = 0.2,
    state_noise: float = 0.01,
    start_noise: float = 0.05,
    cue: bool = False,
) -> Trials:
    """Signals y = C x + noise of accumulator and controller, with the true latents, states and messages.

    Args:
        seed: seed of every draw.
        num_trials, num_bins, neurons_per_region: sizes.
        observation_noise: standard deviation of the noise of each neuron and bin.
        state_noise: standard deviation of the noise of each latent and bin.
        start_noise: standard deviation of the latents of the first bin about home, (0, 1/2) and (-w, 0).
        cue: a second input that is one in the bins in which a state begins. Without, u is the evidence alone.

    The label of a trial is the side that its evidence favours.

    Raises:
        ConfigError: an argument of the wrong type, a size below one, too few bins for the evidence, a noise that is
            negative or throws the latents out of the wells.
    """
    check_sizes(num_trials=num_trials, neurons_per_region=neurons_per_region)
    check_number("num_bins", num_bins, Integral, END_OF_PULSES, " to hold the evidence")
    check_deviations(observation_noise=observation_noise)
    # Beyond, x - x^3 throws the accumulator from one side to the other ever farther.
    check_deviations(most=0.5, state_noise=state_noise, start_noise=start_noise)
    check_flag("cue", cue)
    check_seeds(seed)
    rng = np.random.default_rng(seed)
    right = rng.random(num_trials) < 0.5
    u = _evidence(rng, right, num_bins)
    x, z, messages = _paths(rng, u, state_noise, start_noise)
    begins = np.diff(z, axis=1, prepend=0) != 0
    return Trials.from_arrays(
        noisy(rng, drive(rng.normal(size=(2, neurons_per_region, 2)), x), observation_noise),
        np.stack([u, begins], axis=-1) if cue else u[..., None],
        region_sizes=[neurons_per_region] * 2,
        region_names=["accumulator", "controller"],
        bin_width=STEP,
        x=x,
        z=z,
        messages=messages,
        labels=np.where(right, "right", "left").tolist(),
    )


def sent_messages(
    z: Int[np.ndarray, " trial"], x: Float[np.ndarray, "trial 4"]
) -> Float[np.ndarray, "trial target source 2"]:
    """Messages from x of one bin to the next bin in state z; on the diagonal the change that a region makes itself."""
    a, c = x[:, :2], x[:, 2:]
    back = (z == 1)[:, None]
    well = WELL_RATE * np.stack([a[:, 0] - a[:, 0] ** 3, -a[:, 1]], axis=-1)
    uphill = np.stack([1 - 2 * c[:, 0] ** 2, -2 * c[:, 0] * c[:, 1]], axis=-1)
    field = FIELD_RATE * uphill * np.exp(-(c**2).sum(-1, keepdims=True))
    sent = np.zeros((len(x), 2, 2, 2))
    sent[:, 0, 0] = np.where(back, RETURN_RATE * (HOME - a), well)
    sent[:, 1, 1] = np.where(back, -field - [RETURN_PUSH, 0.0], field)
    sent[:, 1, 0, 0] = np.where(z == 0, TO_CONTROLLER * a[:, 1], 0.0)
    sent[:, 0, 1, 1] = np.where(z == 1, TO_ACCUMULATOR * np.abs(c[:, 0] - LEFT), 0.0)
    return sent


def input_effect(z: Int[np.ndarray, "*batch"], u: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 4"]:
    """b_k u: what the evidence of a bin adds to the latents of that bin in state z."""
    effect = np.zeros((*z.shape, 4))
    effect[..., 0] = np.where(z == 0, EVIDENCE_RATE * u, 0.0)
    return effect


def switch_probability(z: Int[np.ndarray, " trial"], x: Float[np.ndarray, "trial 4"]) -> Float[np.ndarray, " trial"]:
    """Probability that the state of the next bin differs from z, given the latents of this bin."""
    toward = np.where(z == 0, x[:, 2], -x[:, 2])
    return expit(SWITCH_SLOPE * (toward - SWITCH_AT))


def _evidence(rng: np.random.Generator, right: np.ndarray, num_bins: int) -> Float[np.ndarray, "trial bin"]:
    """Signed pulses: Poisson numbers in total at uniform times, which is a Poisson number in every bin of its own."""
    width = END_OF_PULSES - FIRST_PULSE
    share = rng.uniform(*OWN_SHARE, size=(len(right), 1))
    own, other = (rng.poisson(NUM_PULSES / width * s, size=(len(right), width)) for s in (share, 1 - share))
    u = np.zeros((len(right), num_bins))
    u[:, FIRST_PULSE:END_OF_PULSES] = PULSE * np.where(right, 1, -1)[:, None] * (own - other)
    return u


def _paths(
    rng: np.random.Generator, u: Float[np.ndarray, "trial bin"], state_noise: float, start_noise: float
) -> Paths:
    num_trials, num_bins = u.shape
    x = np.zeros((num_trials, num_bins, 4))
    z = np.zeros((num_trials, num_bins), int)
    messages = np.zeros((num_trials, num_bins, 2, 2, 2))
    start = np.array([*HOME, -SWITCH_AT, 0.0])
    x[:, 0] = start + rng.normal(scale=start_noise, size=(num_trials, 4))
    for t in range(1, num_bins):
        z[:, t] = z[:, t - 1] ^ (rng.random(num_trials) < switch_probability(z[:, t - 1], x[:, t - 1]))
        messages[:, t] = sent_messages(z[:, t], x[:, t - 1])
        change = messages[:, t].sum(2).reshape(num_trials, 4) + input_effect(z[:, t], u[:, t])
        x[:, t] = x[:, t - 1] + change + rng.normal(scale=state_noise, size=(num_trials, 4))
    return Paths(x, z, messages)
