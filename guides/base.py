"""What all amortised guides share: standardised signals, an encoder, and the sites ``x`` and the global weights."""

from collections.abc import Callable, Sequence
from typing import Any, Required, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.contrib.module import eqx_module
from numpyro.infer import init_to_value
from numpyro.infer.autoguide import AutoDelta, AutoGuide, AutoNormal

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.models.program import Program
from mrsds_ppl.nn import draws
from mrsds_ppl.nn.by_session import BySession
from mrsds_ppl.nn.encoders import ENCODERS, EncoderOptions, Linear


class Standardizer(eqx.Module):
    """(y - center) / spread of the neurons the encoder may see, zero for the others.

    Where some of a region's neurons are hidden the rest are scaled up, so that sums over a region keep their size.
    ``present`` is 1 for the columns that hold a neuron of a session, and None where all do.
    """

    center: Float[Array, " neuron"]
    spread: Float[Array, " neuron"]
    region_sizes: tuple[int, ...] = eqx.field(static=True)
    present: Float[Array, " neuron"] | None = None

    def __call__(self, batch: Batch) -> Float[Array, "trial bin neuron"]:
        seen = batch.visible.astype(batch.y.dtype)
        member = np.repeat(np.eye(len(self.region_sizes)), self.region_sizes, axis=0)
        fraction = seen @ self._share(member, seen.dtype)
        gain = (1.0 / jnp.maximum(fraction, 1e-3)) @ member.T.astype(seen.dtype)
        center, spread = lax.stop_gradient((self.center, self.spread))
        return (batch.y - center) / spread * seen * gain

    def _share(self, member: np.ndarray, kind: np.dtype) -> Array | np.ndarray:
        """What each neuron is of all in its region, (neuron, region)."""
        if self.present is None:
            return (member / member.sum(0)).astype(kind)
        count = lax.stop_gradient(self.present).astype(kind) @ member.astype(kind)
        return member.astype(kind) / jnp.maximum(count, 1.0)


class Recognition(eqx.Module):
    """Encoder and head: standardised signals -> features -> the numbers of q(x), several to a bin.

    The first of them, the posterior mean, also reads the signals themselves, bin by bin.
    """

    standardizer: Standardizer
    encoder: eqx.Module
    direct: Float[Array, "neuron latent"]
    head: Linear
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, batch: Batch) -> list[Float[Array, "trial bin feature"]]:
        y = self.standardizer(batch)
        features = self.encoder(y, batch.u, batch.lengths)  # type: ignore[operator]
        numbers = lax.optimization_barrier(self.head(features))
        outputs = jnp.split(numbers, np.cumsum(self.sizes)[:-1], axis=-1)
        return [outputs[0] + y @ self.direct, *outputs[1:]]


class SessionRecognition(eqx.Module):
    """Recognition with a first layer, and standardised signals, for each session."""

    parts: BySession[Recognition]

    def __init__(self, recognition: Recognition, num_sessions: int) -> None:
        """All sessions begin with the same."""
        present = jnp.ones_like(recognition.standardizer.center)
        begun = eqx.tree_at(lambda r: r.standardizer.present, recognition, present, is_leaf=lambda leaf: leaf is None)
        self.parts = BySession(begun, _of_neurons, num_sessions)

    def __call__(self, batch: Batch) -> list[Float[Array, "trial bin feature"]]:
        def one(recognition: Recognition, trial: Batch) -> list[Array]:
            return [outputs[0] for outputs in recognition(jax.tree.map(lambda leaf: leaf[None], trial))]

        return self.parts.over_trials(one, batch.session, batch)


def _of_neurons(recognition: Recognition) -> tuple[object, ...]:
    return recognition.standardizer, recognition.direct, recognition.encoder.embedding.weights[0]  # type: ignore[attr-defined]


class AmortizedOptions(TypedDict, total=False):
    """What every :class:`AmortizedGuide` is made with beside the program."""

    key: Required[PRNGKeyArray]
    encoder: str
    options: EncoderOptions | None
    triangular: bool
    trainable_covariance: bool


class AmortizedGuide(AutoGuide):
    """q(x | y, u) from an encoder; subclasses say how the encoder's outputs make a law of the path.

    Args:
        model: the program; sizes are read off it. Weights with a prior get independent normal posteriors.
        encoder: name of an encoder.
        options: its sizes.
        triangular: full instead of diagonal covariance of a bin.
        key: random key for the initial weights.
    """

    needs_every_trial = False

    def __init__(
        self,
        model: Program,
        *,
        key: PRNGKeyArray,
        encoder: str = "convolution",
        options: EncoderOptions | None = None,
        triangular: bool = False,
        trainable_covariance: bool = True,
    ) -> None:
        super().__init__(model, prefix="auto")
        self.triangular, self.trainable_covariance = triangular, trainable_covariance
        self.num_latents = model.num_latents
        num_neurons = sum(model.region_sizes)
        keys = draws.split(key, 3)
        features = ENCODERS[encoder](model.region_sizes, model.num_inputs, options or EncoderOptions(), key=keys[0])
        sizes = tuple(self.head_sizes())
        recognition = Recognition(
            standardizer=Standardizer(jnp.zeros(num_neurons), jnp.ones(num_neurons), model.region_sizes),
            encoder=features,
            direct=draws.normal(keys[2], (num_neurons, self.num_latents), 0.01),
            head=Linear(features.num_features, sum(sizes), key=keys[1], scale=0.1),
            sizes=sizes,
        )
        several = model.num_sessions
        self.recognition = recognition if several is None else SessionRecognition(recognition, several)
        self.global_guide = guide_of_weights(model)

    def head_sizes(self) -> Sequence[int]:
        """Widths of the heads; the first is the posterior mean's."""
        raise NotImplementedError

    def law(self, outputs: list[Array], batch: Batch, networks: Callable[[], Networks]) -> dist.Distribution:
        """q(x) of a batch: batch (trial,), event (bin, latent); standard normal in padding.

        Args:
            outputs: the heads' outputs.
            batch: the trials.
            networks: gives the program's networks to guides that read its dynamics.
        """
        raise NotImplementedError

    def __call__(self, batch: Batch) -> dict[str, Array]:
        batch = jax.tree.map(jnp.asarray, batch)
        others = {} if self.global_guide is None else self.global_guide(batch)
        law = self._law(batch, others)
        with self.model.trials_plate(batch):
            x = numpyro.sample("x", law)
        return {"x": x, **others}

    def _law(self, batch: Batch, weights: dict[str, Any]) -> dist.Distribution:
        """q(x); ``weights`` are those of the program that have a prior, if any."""

        def networks() -> Networks:
            # Parameters of the program are declared here too; draws of weights are the global guide's.
            with handlers.block(hide_fn=lambda site: site["type"] == "sample"), handlers.substitute(data=weights):
                return self.model.declare()

        return self.law(eqx_module("recognition", self.recognition)(batch), batch, networks)

    def path_law(self, params: dict[str, Any], batch: Batch) -> dist.Distribution:
        """q(x | y, u) of a batch under fitted parameters."""
        batch = jax.tree.map(jnp.asarray, batch)
        found = {}

        # Weights that have a prior and are not among the parameters are at their posterior medians.
        others = {} if self.global_guide is None else self.global_guide.median(params)

        def program() -> None:
            found["law"] = self._law(batch, {**others, **params})

        handlers.trace(handlers.substitute(program, data=params)).get_trace()
        return found["law"]

    def sample_posterior(
        self, rng_key: Array, params: dict[str, Any], batch: Batch, *, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Array]:
        """Draws of every latent site, (*sample_shape, trial, bin, latent) for x."""
        return drawn_of(rng_key, self.path_law(params, batch), self.global_guide, params, sample_shape)

    def median(self, params: dict[str, Any], batch: Batch) -> dict[str, Array]:
        """Posterior median of every latent site; that of x is the mean of a Gaussian path."""
        others = {} if self.global_guide is None else self.global_guide.median(params)
        return {"x": self.path_law(params, batch).mean, **others}


def drawn_of(
    key: Array,
    law: dist.Distribution,
    of_weights: AutoGuide | None,
    params: dict[str, Any],
    sample_shape: tuple[int, ...],
) -> dict[str, Array]:
    """Draws of every latent site: x from its law, weights from their guide where they have a prior."""
    x_key, other_key = random.split(key)
    draws = {"x": law.sample(x_key, sample_shape)}
    if of_weights is not None:
        draws |= of_weights.sample_posterior(other_key, params, sample_shape=sample_shape)
    return draws


def guide_of_weights(model: Program, *, point: bool = False) -> AutoNormal | AutoDelta | None:
    """NumPyro's guide of the weights that have a prior, around those that the networks start with; None without one.

    Args:
        model: the program.
        point: a point instead of independent normals.
    """
    if model.options.weight_prior is None:
        return None

    # The rest of the program has nothing that such a guide would ask for.
    def weights(batch: Batch) -> None:
        model.declare()

    start = init_to_value(values=model.initial_weights())
    return AutoDelta(weights, init_loc_fn=start) if point else AutoNormal(weights, init_loc_fn=start, init_scale=0.02)


def padding(batch: Batch) -> Array:
    """True in padded bins, (trial, bin, 1)."""
    return (jnp.arange(batch.y.shape[1]) >= batch.lengths[:, None])[..., None]


def lower_triangle(raw: Float[Array, "*batch entry"], size: int) -> Float[Array, "*batch size size"]:
    """Strictly lower triangular matrix from its entries, row by row."""
    rows, columns = np.tril_indices(size, -1)
    place, inside = np.zeros(size * size, int), np.zeros(size * size, bool)
    place[rows * size + columns], inside[rows * size + columns] = np.arange(len(rows)), True
    # Picked, not multiplied into place: of many latents that product would be the largest of a training step.
    flat = jnp.where(inside, jnp.take(raw, place, axis=-1, mode="clip"), 0.0)
    return flat.reshape(*raw.shape[:-1], size, size)


def positive(raw: Array) -> Array:
    """Standard deviations from unconstrained numbers; an input of 0 gives 0.3."""
    return jax.nn.softplus(raw - 1.05) + 1e-3


def unconstrained_scale(scale: Array) -> Array:
    """The inverse of :func:`positive`, of standard deviations above a thousandth."""
    return jnp.log(jnp.expm1(jnp.maximum(scale - 1e-3, 1e-3))) + 1.05
