"""The generative program and its parts."""

from mrsds_ppl.models.dynamics import Dynamics, DynamicsOptions, Messages, every_message
from mrsds_ppl.models.emissions import EMISSIONS
from mrsds_ppl.models.mrsds import MRSDS, ModelOptions, Networks

__all__ = ["EMISSIONS", "MRSDS", "Dynamics", "DynamicsOptions", "Messages", "ModelOptions", "Networks", "every_message"]
