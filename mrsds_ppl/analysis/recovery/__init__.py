"""Estimates against the truth of a simulation."""
