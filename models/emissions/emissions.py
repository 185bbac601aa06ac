"""Emissions of all neurons: a readout, and the law of each region's neurons around it."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import random
from jaxtyping import Array, Bool, Float, Num
from numpyro.distributions import constraints

from mrsds_ppl.data.signals import Refused
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.emissions import EMISSIONS
from mrsds_ppl.models.options import EmissionOptions
from mrsds_ppl.models.protocols import Law
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.statespace.principal_components import Components


class Emissions(eqx.Module):
    """p(y_t | x_t) of all neurons, eta = C(x) of a readout and a law around it.

    Neurons of all regions with the same law share it: ``laws[i]`` is of ``neurons[i]``.

    Args:
        readout: from latents to one number for each neuron.
        kinds: class of each region's law.
        final_activation, triangular, trainable: see :class:`mrsds_ppl.models.protocols.Law`; of all laws.
    """

    readout: Readout
    laws: tuple[Law, ...]
    neurons: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __init__(
        self,
        readout: Readout,
        kinds: Sequence[Callable[..., Law]],
        *,
        final_activation: str | None = None,
        triangular: bool = False,
        trainable: bool = True,
    ) -> None:
        self.readout, of_neuron = readout, np.repeat(np.arange(len(kinds)), readout.region_sizes)
        laws, neurons = [], []
        for kind in dict.fromkeys(kinds):
            own = np.flatnonzero(np.isin(of_neuron, [r for r, other in enumerate(kinds) if other is kind]))
            form = {"final_activation": final_activation, "triangular": triangular, "trainable": trainable}
            laws.append(kind(len(own), **form))
            neurons.append(tuple(own.tolist()))
        self.laws, self.neurons = tuple(laws), tuple(neurons)

    def of_trials(self, session: Array | np.ndarray | None) -> "Emissions":
        """Those of some trials, which are the same for all: of one session."""
        return self

    @property
    def counts(self) -> Bool[np.ndarray, " neuron"]:
        """Which neurons' signals are counts."""
        return np.concatenate([np.full(len(own), law.counts) for law, own in self._each()])[self._order()]

    @property
    def refused(self) -> list[tuple[Refused, ...]]:
        """Values that the signals of each neuron may not have."""
        by_neuron = {n: law.refused for law, own in self._each() for n in own}
        return [by_neuron[n] for n in range(len(by_neuron))]

    def parameters(self) -> dict[str, Float[Array, " neuron"]]:
        """What the laws have learned beside the readout, by name; NaN for neurons whose law has none of that name."""
        found: dict[str, Array] = {}
        for law, own in self._each():
            for name, values in law.parameters().items():
                whole = found.get(name, jnp.full(sum(map(len, self.neurons)), jnp.nan))
                found[name] = whole.at[own].set(values)
        return found

    def inverse_link(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Expected signals for the readout's numbers."""
        return self._by_law(lambda law, eta: law.mean(eta), eta)

    def activity(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        """Expected signals."""
        return self.inverse_link(self.readout(x))

    def information(self, activity: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Fisher information of each signal about its mean."""
        return self._by_law(lambda law, mean: law.information(mean), activity)

    def law(self, x: Float[Array, "trial bin latent"], observed: Bool[Array, "trial bin neuron"]) -> dist.Distribution:
        """p(y | x) over the observed entries: batch (trial,), event (bin, neuron)."""
        eta = self.readout(x)
        if len(self.laws) == 1:
            return self.laws[0].distribution(eta, observed)
        parts = [law.distribution(eta[..., own], observed[..., own]) for law, own in self._each()]
        return SideBySide(parts, self.neurons)

    def draw(
        self, rng: np.random.Generator, activity: Float[np.ndarray, "*batch neuron"]
    ) -> Num[np.ndarray, "*batch neuron"]:
        """Signals with these means, drawn on the host: whole numbers where all are counts."""
        drawn = [law.draw(rng, activity[..., own]) for law, own in self._each()]
        if len(drawn) == 1:
            return drawn[0]
        joined = np.concatenate(drawn, axis=-1)[..., self._order()].astype(activity.dtype)
        return np.where(np.isnan(activity), np.nan, joined)

    def at_components(self, found: Components) -> "Emissions":
        """Readout and laws started from principal components, y ~ center + loadings x with x of unit variance."""
        starts = [law.at_components(Components(*(part[own] for part in found))) for law, own in self._each()]
        order = self._order()
        bias, loadings = (np.concatenate([getattr(s, name) for s in starts])[order] for name in ("bias", "loadings"))
        laws = tuple(start.law for start in starts)
        return eqx.tree_at(lambda e: (e.readout, e.laws), self, (self.readout.with_affine(bias, loadings), laws))

    def with_residual(self, square: Float[Array, " neuron"]) -> "Emissions":
        """The noise of each law updated to mean squared residuals."""
        laws = tuple(law.with_residual(square[own]) for law, own in self._each())
        return eqx.tree_at(lambda e: e.laws, self, laws)

    def _each(self) -> list[tuple[Law, np.ndarray]]:
        return [(law, np.asarray(own)) for law, own in zip(self.laws, self.neurons, strict=True)]

    def _order(self) -> np.ndarray:
        """Places of the neurons where those of one law follow those of another."""
        return np.argsort(np.concatenate(self.neurons))

    def _by_law(self, function: Callable[[Law, Array], Array], values: Array) -> Array:
        if len(self.laws) == 1:
            return function(self.laws[0], values)
        parts = [function(law, values[..., own]) for law, own in self._each()]
        return jnp.concatenate(parts, axis=-1)[..., self._order()]


def refused_of(options: EmissionOptions, trials: Trials) -> list[tuple[Refused, ...]]:
    """Values that the signals of each neuron may not have under the laws of its region.

    Args:
        options: which name the laws.
        trials: whose regions they are of.

    Raises:
        ConfigError: laws of other regions.
    """
    laws = options.of_regions(trials.region_names)
    return [EMISSIONS[law].refused for law, size in zip(laws, trials.region_sizes, strict=True) for _ in range(size)]


class SideBySide(dist.Distribution):
    """Independent laws of some neurons each: event (bin, neuron)."""

    support = constraints.independent(constraints.real, 2)

    def __init__(self, parts: Sequence[dist.Distribution], neurons: Sequence[Sequence[int]]) -> None:
        self.parts, self.neurons = parts, [np.asarray(own) for own in neurons]
        (bins, _), total = parts[0].event_shape, sum(map(len, neurons))
        super().__init__(parts[0].batch_shape, (bins, total), validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        keys = random.split(key, len(self.parts))
        drawn = [part.sample(key, sample_shape).astype(float) for key, part in zip(keys, self.parts, strict=True)]
        return jnp.concatenate(drawn, axis=-1)[..., np.argsort(np.concatenate(self.neurons))]

    def log_prob(self, value: Array, intermediates: None = None) -> Array:
        each = [part.log_prob(value[..., own]) for part, own in zip(self.parts, self.neurons, strict=True)]
        return jnp.stack(each).sum(0)
