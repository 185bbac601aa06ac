"""Multi-region switching dynamical systems (MR-SDS) as a NumPyro program."""

from importlib.metadata import version

__version__ = version("mrsds-ppl")
