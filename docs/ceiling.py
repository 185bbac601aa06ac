"""What the test trials of the oscillators can tell at all: a particle smoother that knows the true parameters.

python docs/ceiling.py 0 1 2

Filters forward with 4,000 particles and draws 60 paths backwards (Godsill, Doucet and West, 2004); R2 of each latent
and accuracy of the states as in docs/results.md. A fit cannot do better, but for the error of so many particles.
"""

import inspect
import sys

import numpy as np

from mrsds_ppl.analysis.recovery.alignment import align_latents
from mrsds_ppl.data.simulate import simulate_oscillators
from mrsds_ppl.data.simulate.oscillators import OscillatorWorld, draw_world, sent_messages
from mrsds_ppl.data.split import split_trials

_PARTICLES, _PATHS = 4000, 60
_CASE = {n: p.default for n, p in inspect.signature(simulate_oscillators).parameters.items()}
_NOISE, _STAY = _CASE["state_noise"], _CASE["stay"]


def moved(world: OscillatorWorld, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Expected latents of the next bin, (particle, latent)."""
    by_region = x.reshape(len(x), -1, 2)
    return x + sent_messages(world.dynamics, z, by_region).sum(2).reshape(x.shape)


def smooth(world: OscillatorWorld, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means of the latents and probabilities of the states of one trial."""
    num_states, num_regions = world.dynamics.turn.shape
    leave = (1 - _STAY) / (num_states - 1)
    log_moves = np.log(np.where(np.eye(num_states, dtype=bool), _STAY, leave))
    z = rng.integers(0, num_states, size=_PARTICLES)
    angle = rng.uniform(0, 2 * np.pi, size=(_PARTICLES, num_regions))
    x = world.dynamics.radius[z][:, None] * np.stack([np.cos(angle), np.sin(angle)], -1).reshape(_PARTICLES, -1)
    alive = []
    for t, counts in enumerate(y):
        if t:
            chosen = rng.choice(_PARTICLES, _PARTICLES, p=alive[-1][2])
            z, x = z[chosen], x[chosen]
            jump = rng.integers(1, num_states, size=_PARTICLES)
            z = np.where(rng.random(_PARTICLES) < _STAY, z, (z + jump) % num_states)
            x = moved(world, z, x) + rng.normal(scale=_NOISE, size=x.shape)
        rate = np.logaddexp(0.0, world.drive(x) + world.bias)
        score = (counts * np.log(rate) - rate).sum(1)
        weight = np.exp(score - score.max())
        alive.append((z, x, weight / weight.sum()))
    chosen = rng.choice(_PARTICLES, _PATHS, p=alive[-1][2])
    z, x = alive[-1][0][chosen], alive[-1][1][chosen]
    means, states = [x.mean(0)], [np.eye(num_states)[z].mean(0)]
    for before_z, before_x, weight in reversed(alive[:-1]):
        ahead = np.stack([moved(world, np.full(_PARTICLES, k), before_x) for k in range(num_states)])
        score = -0.5 * ((x[:, None] - ahead[z]) ** 2).sum(-1) / _NOISE**2
        score += log_moves[before_z][:, z].T + np.log(weight + 1e-300)
        chosen = (score + rng.gumbel(size=score.shape)).argmax(1)
        z, x = before_z[chosen], before_x[chosen]
        means.append(x.mean(0))
        states.append(np.eye(num_states)[z].mean(0))
    return np.stack(means[::-1]), np.stack(states[::-1])


def main(seeds: list[int]) -> None:
    """Prints a line for each seed."""
    for seed in seeds:
        trials = simulate_oscillators(seed)
        test = split_trials(trials, 0.1, seed).test
        given = {name: _CASE[name] for name in inspect.signature(draw_world).parameters if name in _CASE}
        world = draw_world(np.random.default_rng(seed), **given)
        mean = np.full(test.x.shape, np.nan, np.float32)
        right = []
        for trial, length in enumerate(test.lengths):
            found, states = smooth(world, test.y[trial, :length], np.random.default_rng([seed, trial]))
            mean[trial, :length] = found
            right.append(states.argmax(1) == test.z[trial, :length])
        r2 = align_latents(test.x, mean, test.lengths, [2, 2, 2], [2, 2, 2]).r2
        print(f"seed {seed}: R2 {np.round(r2, 4)}, mean {r2.mean():.4f}, states {np.concatenate(right).mean():.4f}")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]])
