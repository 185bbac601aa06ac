"""Simulators with known latents and states; each takes a seed and keyword arguments and returns Trials."""

from mrsds_ppl.data.simulate.lotka_volterra import simulate_lotka_volterra

SIMULATORS = {"lotka-volterra": simulate_lotka_volterra}

__all__ = ["SIMULATORS", "simulate_lotka_volterra"]
