"""Negative binomial counts, y ~ NB with mean m = rate(eta) and variance m + a m^2."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int

from mrsds_ppl.models.emissions.poisson import Poisson
from mrsds_ppl.models.emissions.rate import drawn_counts
from mrsds_ppl.models.protocols import LawStart
from mrsds_ppl.statespace.principal_components import Components

# Single precision cannot tell a smaller dispersion from none, which is Poisson.
_SMALLEST, _LARGEST_START = 1e-3, 10.0


class NegativeBinomial(Poisson):
    """y ~ NB(m, a) per bin, m = rate(eta), and a dispersion a of each neuron, which is learned; a = 0 is Poisson."""

    log_dispersion: Float[Array, " neuron"]

    def __init__(
        self, num_neurons: int, *, final_activation: str | None, triangular: bool = False, trainable: bool = True
    ) -> None:
        super().__init__(num_neurons, final_activation=final_activation)
        self.log_dispersion = jnp.full(num_neurons, -1.0)

    @property
    def dispersion(self) -> Float[Array, " neuron"]:
        """a of each neuron."""
        return jnp.exp(self.log_dispersion) + _SMALLEST

    def parameters(self) -> dict[str, Float[Array, " neuron"]]:
        """a, the dispersion."""
        return {"dispersion": self.dispersion}

    def information(self, mean: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """1 / (m + a m^2)."""
        return 1.0 / (mean + self.dispersion * mean**2)

    def distribution(
        self, eta: Float[Array, "trial bin neuron"], observed: Bool[Array, "trial bin neuron"]
    ) -> dist.Distribution:
        """p(y | eta) over the observed entries."""
        return dist.NegativeBinomial2(self.mean(eta), 1.0 / self.dispersion).mask(observed).to_event(2)

    def draw(
        self, rng: np.random.Generator, mean: Float[np.ndarray, "*batch neuron"]
    ) -> Int[np.ndarray, "*batch neuron"]:
        """Counts, Poisson around means that are gamma distributed; -1 where the expected count is not a number."""
        dispersion = np.asarray(self.dispersion, float)
        return drawn_counts(rng, mean * rng.gamma(1.0 / dispersion, dispersion, mean.shape))

    def at_components(self, found: Components) -> LawStart:
        """The principal components of counts; a is what they leave beyond Poisson."""
        mean = np.maximum(found.center, 1e-3)
        excess = np.clip((found.residual - mean) / mean**2, 10 * _SMALLEST, _LARGEST_START)
        law = eqx.tree_at(lambda law: law.log_dispersion, self, jnp.asarray(np.log(excess), self.log_dispersion.dtype))
        return LawStart(law, *self.rate.inverse(found.center, found.loadings))
