"""What makes a switching model a NumPyro program: the primitive, its bound, laws of paths. Imports statespace."""

from mrsds_ppl.ppl.elbo import MarkovELBO
from mrsds_ppl.ppl.enumerated import enumerated
from mrsds_ppl.ppl.markov import markov, summed_out
from mrsds_ppl.ppl.markov_enum_elbo import TraceMarkovEnum_ELBO

__all__ = ["MarkovELBO", "TraceMarkovEnum_ELBO", "enumerated", "markov", "summed_out"]
