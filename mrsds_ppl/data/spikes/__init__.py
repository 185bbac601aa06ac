"""Spike times, and signals with times of their own, in the bins of trials. Imports errors only."""
