"""Simulators with known latents and states; each takes a seed and keyword arguments and returns Trials."""

import inspect
from collections.abc import Callable

from mrsds_ppl.data.simulate.double_well import simulate_double_well
from mrsds_ppl.data.simulate.lotka_volterra import simulate_lotka_volterra
from mrsds_ppl.data.simulate.oscillators import simulate_oscillators
from mrsds_ppl.data.simulate.three_rnns import simulate_three_rnns
from mrsds_ppl.data.simulate.wells import simulate_wells
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError

SIMULATORS: dict[str, Callable[..., Trials]] = {
    "lotka-volterra": simulate_lotka_volterra,
    "oscillators": simulate_oscillators,
    "double-well": simulate_double_well,
    "three-rnns": simulate_three_rnns,
    "wells": simulate_wells,
}


def simulate(simulator: str, *, seed: int = 0, **options: object) -> Trials:
    """Trials of a simulator, with the true latents, states and, where it knows them, messages.

    Args:
        simulator: its name: ``lotka-volterra``, ``oscillators``, ``double-well``, ``three-rnns`` or ``wells``.
        seed: of every draw.
        options: further arguments of the simulator, such as ``num_trials``.

    Raises:
        ConfigError: there is no such simulator or argument, or a value is wrong.
    """
    if simulator not in SIMULATORS:
        raise ConfigError(f"simulator: found {simulator!r}; allowed: {', '.join(SIMULATORS)}.")
    known = simulation_options(simulator)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(f"{simulator}: unknown argument {unknown[0]}; allowed: seed, {', '.join(known)}.")
    return SIMULATORS[simulator](seed, **options)


def simulation_options(name: str) -> list[str]:
    """Keyword arguments of a simulator."""
    return [argument for argument in inspect.signature(SIMULATORS[name]).parameters if argument != "seed"]


__all__ = [
    "SIMULATORS",
    "simulate",
    "simulate_double_well",
    "simulate_lotka_volterra",
    "simulate_oscillators",
    "simulate_three_rnns",
    "simulate_wells",
    "simulation_options",
]
