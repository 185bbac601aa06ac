"""Three regions of different kinds under inputs: two wells, a cycle that can break down, and a relay.

    x_t^r = x_{t-1}^r + m_k^{rr}(x_{t-1}^r) + sum_{s != r} c G_k[r, s] tanh(B_krs x_{t-1}^s) + D_kr u_t + noise

    wells  (a)   m(a) = h (a_1 - a_1^3, -a_2): stable at a_1 = -1 and 1
    cycle  (c)   state 0: a limit cycle of radius 1;      state 1: a spiral to the origin
    relay  (r)   m(r) = -(1 - e) r: a low-pass of what it is told

with k = z_t. Messages saturate and differ by state: in both the wells tell the relay, by other maps; in state 0 the
relay tells the cycle, in state 1 the cycle the wells. Pulses of the first input push the wells to either side, those of
the second the cycle, in state 1 alone. z is a sticky Markov chain that depends on nothing else.
"""

from functools import partial
from numbers import Integral

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.data.simulate.checks import check_deviations, check_number, check_seeds, check_sizes
from mrsds_ppl.data.simulate.paths import Paths, drive, follow, offsets_for_mean, rotations, sticky_states
from mrsds_ppl.data.trials import Trials

REGIONS = ("wells", "cycle", "relay")
WELL_RATE = 0.15  # h
TURN, SPIRAL_TURN = 0.35, 0.15  # radians a bin, states 0 and 1
PULL = 0.25  # how fast the radius returns to the limit cycle
SPIRAL_DECAY = 0.92  # of the radius in a bin
RELAY_KEEPS = 0.8  # e
SLOPE = 1.5  # of the maps B, which turn by a random angle
PULSE_SHARE = 0.06  # of the bins, for each input
STRENGTH = 0.2  # c, the largest size of each component of a message
STAY = 0.96  # probability of keeping the state from bin to bin
MEAN_COUNT, LOADING = 0.6, 0.4  # of a neuron and bin; standard deviation of the loadings, under a softplus rate
PUSH, KICK = 0.5, 0.4  # what a pulse adds to the wells and to the cycle
# (state, target, source)
GRAPH = np.zeros((2, 3, 3), bool)
GRAPH[[0, 1, 0, 1], [2, 2, 1, 0], [0, 0, 2, 1]] = True


def simulate_wells(
    seed: int, num_trials: int = 220, num_bins: int = 110, neurons_per_region: int = 40, state_noise: float = 0.07
) -> Trials:
    """Spike counts of trials of unequal length, with inputs and the true latents, states and messages.

    Args:
        seed: seed of every draw.
        num_trials: number of trials.
        num_bins: longest length of a trial, which is uniform from two thirds of it on.
        neurons_per_region: neurons.
        state_noise: standard deviation of the noise of each latent and bin.

    Raises:
        ConfigError: an argument that is out of its range (it is named).
    """
    check_sizes(num_trials=num_trials, neurons_per_region=neurons_per_region)
    check_number("num_bins", num_bins, Integral, 3)
    # Beyond, x - x^3 throws the wells from one side to the other ever farther.
    check_deviations(most=0.5, state_noise=state_noise)
    check_seeds(seed)
    rng = np.random.default_rng(seed)
    maps = SLOPE * rotations(rng.uniform(0, 2 * np.pi, size=(2, 3, 3)))
    pulse = PULSE_SHARE / 2
    u = rng.choice([-1.0, 0.0, 1.0], size=(num_trials, num_bins, 2), p=[pulse, 1 - PULSE_SHARE, pulse])
    z = sticky_states(rng, num_trials, num_bins, 2, STAY)
    told = partial(sent_messages, maps=maps)
    paths = follow(rng, _start(rng, num_trials), z, told, state_noise, input_effect(z, u))
    loadings = rng.normal(scale=LOADING, size=(3, neurons_per_region, 2))
    driven, lengths = drive(loadings, paths.x), rng.integers(2 * num_bins // 3, num_bins + 1, size=num_trials)
    counts = rng.poisson(np.logaddexp(0.0, driven + offsets_for_mean(driven, MEAN_COUNT))).astype(float)
    ys, us, *truth = ([v[:n] for v, n in zip(part, lengths, strict=True)] for part in (counts, u, *paths))
    return Trials.from_arrays(
        ys,
        us,
        region_sizes=[neurons_per_region] * 3,
        region_names=list(REGIONS),
        bin_width=0.05,
        **dict(zip(Paths._fields, truth, strict=True)),
    )


def sent_messages(
    z: Int[np.ndarray, " trial"],
    x: Float[np.ndarray, "trial region 2"],
    maps: Float[np.ndarray, "state target source 2 2"],
) -> Float[np.ndarray, "trial target source 2"]:
    """Messages from x of one bin to the next bin in state z; on the diagonal the change that a region makes itself."""
    told = STRENGTH * np.tanh(np.einsum("brsij,bsj->brsi", maps[z], x)) * GRAPH[z][..., None]
    a, c, r = x.swapaxes(0, 1)
    told[:, 0, 0] = WELL_RATE * np.stack([a[:, 0] - a[:, 0] ** 3, -a[:, 1]], axis=-1)
    turned = np.einsum("bij,bj->bi", rotations(np.where(z == 0, TURN, SPIRAL_TURN)), c)
    pull = (1 + PULL) / (1 + PULL * (c**2).sum(-1))
    told[:, 1, 1] = turned * np.where(z == 0, pull, SPIRAL_DECAY)[:, None] - c
    told[:, 2, 2] = (RELAY_KEEPS - 1) * r
    return told


def input_effect(
    z: Int[np.ndarray, "*batch"], u: Float[np.ndarray, "*batch 2"]
) -> Float[np.ndarray, "*batch region 2"]:
    """D_k u: what the inputs of a bin add to the latents of that bin in state z."""
    effect = np.zeros((*z.shape, 3, 2))
    effect[..., 0, 0], effect[..., 1, 1] = PUSH * u[..., 0], np.where(z == 1, KICK * u[..., 1], 0.0)
    return effect


def _start(rng: np.random.Generator, num_trials: int) -> Float[np.ndarray, "trial region 2"]:
    """Wells in one of the two, the cycle on its circle, the relay silent."""
    angle, start = rng.uniform(0, 2 * np.pi, size=num_trials), np.zeros((num_trials, 3, 2))
    start[:, 0, 0] = rng.choice([-1.0, 1.0], size=num_trials)
    start[:, 1] = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return start
