"""Seconds of a training step with few and many regions: both kinds of additive messages, and a step written by hand.

    python tests/benchmarks/many_regions.py [ROUNDS] [CASE ...]

All that is compared is run in turns, and the shortest of each is reported, since other work on the machine only adds.
"""

import sys
import time

import jax
from bench_case import Sizes, make_step
from step_by_hand import make_by_hand

from mrsds_ppl.backend.compiler_flags import choose_optimization_level
from mrsds_ppl.models import DynamicsOptions, ModelOptions

CASES = {
    "R2": Sizes(64, 150, 100, 2, 1, 2, steps=5),
    "R3": Sizes(64, 100, 180, 3, 4, 3, steps=4),
    "R7": Sizes(64, 40, 560, 7, 3, 2, steps=4),
    "R12": Sizes(64, 40, 960, 12, 3, 2, steps=3),
    "R16": Sizes(32, 100, 4800, 16, 4, 3, steps=1),
}
KINDS = ("additive", "additive-shared")


def package(sizes, kind):
    """A function that takes `sizes.steps` steps as `mrsds fit` compiles them."""
    options = ModelOptions(dynamics=DynamicsOptions(communication_type=kind))
    step = make_step("gaussian_markov", "convolution", sizes, options)
    state = step.state

    def lap():
        nonlocal state
        state, _ = jax.block_until_ready(step.run_chunk(state, step.data))

    return lap, step.data.y, sum(leaf.size for leaf in jax.tree.leaves(state.params["dynamics$params"]))


def by_hand(sizes, kind, y):
    """The same of the step written by hand, on the same signals."""
    run, carry = make_by_hand(sizes, kind == "additive-shared")

    def lap():
        nonlocal carry
        carry, _ = jax.block_until_ready(run(carry, jax.random.key(0), y))

    return lap


def measured(laps, rounds):
    """Shortest seconds of each lap, in turns."""
    best = dict.fromkeys(laps, float("inf"))
    for number in range(rounds + 1):
        for name, lap in laps.items():
            began = time.perf_counter()
            lap()
            # The first round compiles.
            best[name] = min(best[name], time.perf_counter() - began) if number else best[name]
    return best


def main(rounds, cases):
    print("case  messages         parameters   first s   step ms   by hand ms   ratio   to additive")
    for name in cases:
        sizes, laps, counts, first = CASES[name], {}, {}, {}
        for kind in KINDS:
            began = time.perf_counter()
            lap, y, counts[kind] = package(sizes, kind)
            lap()
            first[kind] = time.perf_counter() - began
            laps |= {kind: lap, f"{kind} by hand": by_hand(sizes, kind, y)}
        best = {lap: 1e3 * seconds / sizes.steps for lap, seconds in measured(laps, rounds).items()}
        for kind in KINDS:
            own, hand = best[kind], best[f"{kind} by hand"]
            print(
                f"{name:5} {kind:16} {counts[kind]:10,} {first[kind]:9.1f} {own:9.1f} {hand:12.1f} {own / hand:7.2f} "
                f"{own / best['additive']:13.2f}",
                flush=True,
            )


if __name__ == "__main__":
    choose_optimization_level()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:] or CASES)
