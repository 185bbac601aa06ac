"""What makes a switching model a NumPyro program that other inference can take: its stock form, and the loss for that.

May import the errors and the programs of switching models; knows no model and no guide.
"""

from mrsds_ppl.ppl.enumerated import enumerated
from mrsds_ppl.ppl.markov_enum_elbo import TraceMarkovEnum_ELBO

__all__ = ["TraceMarkovEnum_ELBO", "enumerated"]
