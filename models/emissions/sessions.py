"""Emissions of several sessions: a readout of the latents and a law for the neurons of each."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import random
from jaxtyping import Array, Bool, Float, Int, Num
from numpyro.distributions import constraints

from mrsds_ppl.data.signals import Refused
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.nn.by_session import BySession


class SessionEmissions(eqx.Module):
    """p(y_t | x_t) of each session's neurons; hidden layers of a perceptron are shared.

    What follows the signals of some trials is asked of :meth:`of_trials`.
    """

    parts: BySession[Emissions]
    session: Int[Array, " trial"] | None

    def __init__(self, emissions: Emissions, num_sessions: int) -> None:
        """All sessions begin with the same emissions."""
        self.parts = BySession(emissions, lambda e: (e.readout.weight, e.readout.bias, e.laws), num_sessions)
        self.session = None

    def of_trials(self, session: Array | np.ndarray | None) -> "SessionEmissions":
        """Those of some trials, whose sessions have these numbers."""
        assert session is not None, "each trial of joined sessions has the number of its own"
        return eqx.tree_at(lambda e: e.session, self, session, is_leaf=lambda leaf: leaf is None)

    def of_sessions(self, found: Sequence[Emissions]) -> "SessionEmissions":
        """With the given emissions of each session."""
        return eqx.tree_at(lambda e: e.parts, self, self.parts.of_each(found))

    def with_session(self, number: int, found: Emissions) -> "SessionEmissions":
        """With the given emissions of one session."""
        return eqx.tree_at(lambda e: e.parts, self, self.parts.with_part(number, found))

    def each(self, function: Callable[[Emissions, Int[Array, ""]], Emissions]) -> "SessionEmissions":
        """``function(emissions, number)`` of every session."""
        return eqx.tree_at(lambda e: e.parts, self, self.parts.each(function))

    @property
    def readout(self) -> Readout:
        """Weights and biases have a leading axis of sessions."""
        return self.parts.whole.readout

    def parameters(self) -> dict[str, Float[Array, "session neuron"]]:
        """What the laws of each session have learned beside the readout, by name."""
        return jax.vmap(lambda own: eqx.combine(self.parts.shared, own).parameters())(self.parts.own)

    @property
    def counts(self) -> Bool[np.ndarray, " neuron"]:
        """Which columns of neurons hold counts."""
        return self.parts.shared.counts

    @property
    def refused(self) -> list[tuple[Refused, ...]]:
        """Values that the signals of each column may not have."""
        return self.parts.shared.refused

    def inverse_link(self, eta: Float[Array, "trial *bin neuron"]) -> Float[Array, "trial *bin neuron"]:
        """Expected signals for the readout's numbers."""
        return self.parts.over_trials(lambda e, eta: e.inverse_link(eta), self._session, eta)

    def activity(self, x: Float[Array, "trial *bin latent"]) -> Float[Array, "trial *bin neuron"]:
        """Expected signals."""
        return self.parts.over_trials(lambda e, x: e.activity(x), self._session, x)

    def information(self, activity: Float[Array, "trial *bin neuron"]) -> Float[Array, "trial *bin neuron"]:
        """Fisher information of each signal about its mean."""
        return self.parts.over_trials(lambda e, mean: e.information(mean), self._session, activity)

    def law(self, x: Float[Array, "trial bin latent"], observed: Bool[Array, "trial bin neuron"]) -> dist.Distribution:
        """p(y | x) over the observed entries: batch (trial,), event (bin, neuron)."""
        return _LawOfTrials(self.parts, self._session, x, observed)

    def draw(
        self, rng: np.random.Generator, activity: Float[np.ndarray, "trial *bin neuron"]
    ) -> Num[np.ndarray, "trial *bin neuron"]:
        """Signals with these means, drawn on the host."""
        session, drawn = np.asarray(self._session), None
        for number in np.unique(session):
            own = session == number
            some = self.parts.of(int(number)).draw(rng, activity[own])
            drawn = np.zeros(activity.shape, some.dtype) if drawn is None else drawn
            drawn[own] = some
        return activity if drawn is None else drawn

    @property
    def _session(self) -> Int[Array, " trial"]:
        assert self.session is not None, "of_trials says of which trials the emissions are asked"
        return jnp.asarray(self.session)


SomeEmissions = Emissions | SessionEmissions


class _LawOfTrials(dist.Distribution):
    """Laws of trials of several sessions: event (bin, neuron)."""

    support = constraints.independent(constraints.real, 2)

    def __init__(self, parts: BySession[Emissions], session: Array, x: Array, observed: Array) -> None:
        self.parts, self.session, self.x, self.observed = parts, session, x, observed
        super().__init__(observed.shape[:1], observed.shape[1:], validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        def one(emissions: Emissions, x: Array, observed: Array, key: Array) -> Array:
            return jnp.moveaxis(emissions.law(x[None], observed[None]).sample(key, sample_shape), len(sample_shape), 0)[
                0
            ]

        keys = random.split(key, self.batch_shape[0])
        drawn = self.parts.over_trials(one, self.session, self.x, self.observed, keys)
        return jnp.moveaxis(drawn, 0, len(sample_shape))

    def log_prob(self, value: Array, intermediates: None = None) -> Array:
        def one(emissions: Emissions, x: Array, observed: Array, value: Array) -> Array:
            return emissions.law(x[None], observed[None]).log_prob(value[None])[0]

        return self.parts.over_trials(one, self.session, self.x, self.observed, value)
