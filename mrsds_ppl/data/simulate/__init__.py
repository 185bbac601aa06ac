"""Simulators with known latents and states; each takes a seed and keyword arguments and returns Trials."""

from collections.abc import Callable

from mrsds_ppl.data.simulate.double_well import simulate_double_well
from mrsds_ppl.data.simulate.lotka_volterra import simulate_lotka_volterra
from mrsds_ppl.data.simulate.oscillators import simulate_oscillators
from mrsds_ppl.data.simulate.three_rnns import simulate_three_rnns
from mrsds_ppl.data.trials import Trials

SIMULATORS: dict[str, Callable[..., Trials]] = {
    "lotka-volterra": simulate_lotka_volterra,
    "oscillators": simulate_oscillators,
    "double-well": simulate_double_well,
    "three-rnns": simulate_three_rnns,
}

__all__ = [
    "SIMULATORS",
    "simulate_double_well",
    "simulate_lotka_volterra",
    "simulate_oscillators",
    "simulate_three_rnns",
]
