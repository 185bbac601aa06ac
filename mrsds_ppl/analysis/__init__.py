"""What is read off a fit: posteriors, messages, flow, forecasts and scores. Imports guides and what is below them.

Every analysis begins with a :class:`FittedProgram`, the program with its parameters and the guide.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.guides import Guide, for_new_trials
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.ppl.elbo import log_weights


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["model", "guide"])
@dataclass(frozen=True, eq=False)
class FittedProgram:
    """A program under fitted parameters, with the guide that infers trials under it; compiled functions take it whole.

    Args:
        model: the program.
        params: values by site, of program and guide.
        guide: not needed by what asks nothing of single trials' posteriors.
    """

    model: MRSDS
    params: dict[str, Any]
    guide: Guide | None = None

    @property
    def networks(self) -> Networks:
        """The program's networks with the fitted parameters."""
        return self.model.networks_from(self.params)

    def draws(self, key: PRNGKeyArray, batch: Batch, count: int) -> Float[Array, "{count} trial bin latent"]:
        """Draws of the latents from q(x | y, u)."""
        return self._guide.sample_posterior(key, self.params, batch, sample_shape=(count,))["x"]

    def medians(self, batch: Batch) -> Float[Array, "trial bin latent"]:
        """Posterior medians of the latents, which are their means where q is Gaussian."""
        return self._guide.median(self.params, batch)["x"]

    def log_weights(self, key: PRNGKeyArray, batch: Batch, count: int) -> Float[Array, "{count} trial"]:
        """log p(x, y) - log q(x) of draws for each trial, in nats."""
        return log_weights(key, self.params, self.model, self._guide, batch, num_samples=count)

    def adapted(self, key: PRNGKeyArray, batch: Batch) -> "FittedProgram":
        """The same for trials as a batch shows them, which a guide without an encoder is fitted to."""
        return replace(self, params=for_new_trials(key, self.params, self._guide, [batch]))

    @property
    def _guide(self) -> Guide:
        if self.guide is None:
            raise RunError("the fitted program has no guide, which the posterior of trials needs; give it one")
        return self.guide


__all__ = ["FittedProgram"]
