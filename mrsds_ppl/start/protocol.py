"""What every start of a fit is: a call that gives the parameters which joint training begins with."""

from typing import Protocol, runtime_checkable

from jaxtyping import PyTree
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.train.history import Keys


@runtime_checkable
class Start(Protocol):
    """Where parameters begin: principal components, smoothed paths, or stages by way of an AR-HMM.

    One start may follow another: the last two go on from parameters whose emissions the first has set.
    """

    def __call__(
        self, key: Keys, params: dict[str, PyTree], model: MRSDS, guide: AutoGuide, data: Batch
    ) -> dict[str, PyTree]:
        """Parameters of program and guide by site.

        Args:
            key: random key of the run, or one for each restart where parameters have a leading axis of restarts.
            params: parameters so far.
            model, guide: the program and its guide.
            data: training set, on the device.
        """
        ...
