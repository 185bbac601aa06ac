"""The generative program: multi-region switching dynamical systems (Karniol-Tambour et al., ICLR 2024).

    z_1 ~ Cat(pi)                            x_1 | z_1 = k ~ N(mu_k, S_0)
    z_t | z_{t-1} = j, x_{t-1}, u_t ~ Cat(softmax_i (W [x_{t-1}; u_t] + b)_{ji})
    x_t | z_t = k, x_{t-1}, u_t ~ N(f_k(x_{t-1}, u_t), Q)
    y_t^r | x_t^r ~ emission of region r

Linear dynamics networks (no hidden layers) make it the multi-population recurrent switching linear system, K = 1 a
linear or nonlinear state-space model.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Num, PRNGKeyArray
from numpyro.contrib.module import eqx_from_dict, eqx_module, eqx_to_dict, random_eqx_module

from mrsds_ppl.backend.sharding import trials_first
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.models.covariance import AnyArray
from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.models.emissions import EMISSIONS
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.emissions.sessions import SessionEmissions, SomeEmissions
from mrsds_ppl.models.initial import Initial
from mrsds_ppl.models.options import ModelOptions as ModelOptions
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.models.transitions import Transitions
from mrsds_ppl.nn import draws
from mrsds_ppl.ppl.enumerated import enumerated
from mrsds_ppl.ppl.markov import Switching, markov, select
from mrsds_ppl.statespace.chain import LogNormalizer, sequential_log_normalizer

# One state a trial where states are drawn; the constant of all states where they are summed.
States = Array | np.ndarray


class Networks(NamedTuple):
    """The four parts of the model; their parameters are the sites ``NAME$params`` of the program."""

    initial: Initial
    transitions: Transitions
    dynamics: Dynamics
    emissions: SomeEmissions


def of_program(name: str) -> bool:
    """Whether a parameter, by its name in NumPyro's store, is of the program's networks and not of a guide."""
    return name.split("$")[0] in Networks._fields


class MRSDS:
    """The program ``model(batch)``, with sites ``x``, ``z`` (summed exactly by the inference) and ``y``.

    ``model.enumerated`` is the same program with z as a discrete site of NumPyro's own idiom.

    Args:
        region_sizes: neurons of each region; of the largest session in it, where there are several.
        latent_sizes: latent dimensions of each region (an int for all).
        num_states: K.
        num_inputs: width of ``batch.u``.
        num_stages: width of ``batch.stage``.
        options: form of the model.
        num_sessions: of which each has emissions of its own; None for one recording.
        num_trials: trials of the data set; a mini-batch is scaled to it. ``None``: a batch is the data set.
        log_normalizer: how the chain is summed (sequential, or parallel in time for a GPU).
        key: random key for the initial weights.
    """

    def __init__(
        self,
        region_sizes: Sequence[int],
        latent_sizes: Sequence[int] | int,
        num_states: int,
        *,
        key: PRNGKeyArray,
        num_inputs: int = 0,
        num_stages: int = 0,
        options: ModelOptions | None = None,
        num_sessions: int | None = None,
        num_trials: int | None = None,
        log_normalizer: LogNormalizer = sequential_log_normalizer,
    ) -> None:
        self.options = options = options or ModelOptions()
        if isinstance(latent_sizes, int):
            latent_sizes = [latent_sizes] * len(region_sizes)
        self.region_sizes = tuple(region_sizes)
        self.latent_sizes = (sum(latent_sizes),) if options.dynamics.single_region_latent else tuple(latent_sizes)
        self.num_states, self.num_inputs, self.num_trials = num_states, num_inputs, num_trials
        self.num_sessions = num_sessions
        if num_sessions is not None and options.weight_prior is not None:
            raise ConfigError("model.weight_prior: found one with sessions that were joined; leave it out, or fit one")
        self.log_normalizer = log_normalizer
        self.num_latents = sum(self.latent_sizes)
        num_features = self.num_latents * options.xz + num_inputs * options.uz + num_stages * options.sz
        hidden, emissions = options.transitions.layer_mult * num_states**2, options.emissions
        keys = draws.split(key, 4)
        readout = Readout(
            self.region_sizes, self.latent_sizes, emissions.layers, emissions.activations or (), key=keys[3]
        )
        laws = emissions.of_regions([f"region{r}" for r in range(len(region_sizes))])
        of_one = Emissions(
            readout,
            [EMISSIONS[law] for law in laws],
            final_activation=emissions.final_activation,
            triangular=emissions.triangular_cov,
            trainable=emissions.trainable_cov,
        )
        self.networks = Networks(
            initial=Initial(
                num_states,
                self.num_latents,
                triangular=options.initial.triangular_cov,
                trainable=options.initial.trainable_cov,
                key=keys[0],
            ),
            transitions=Transitions(num_states, num_features, hidden=hidden, key=keys[1]),
            dynamics=Dynamics(num_states, self.latent_sizes, num_inputs * options.ux, options.dynamics, key=keys[2]),
            emissions=of_one if num_sessions is None else SessionEmissions(of_one, num_sessions),
        )

    def __call__(self, batch: Batch) -> Num[Array, "trial bin neuron"]:
        return self._program(batch, markov)

    def enumerated(self, batch: Batch) -> Num[Array, "trial bin neuron"]:
        """The same program in NumPyro's own idiom, z a discrete site that funsor enumerates: see docs/enumeration.md.

        It has the same parameters and the same sites x and y. The program itself is faster; this one is for what
        enumerates: funsor's ``log_density``, ``infer_discrete``, ``NUTS``, ``render_model``, ``TraceMarkovEnum_ELBO``.
        """
        return self._program(batch, enumerated)

    def _program(
        self, batch: Batch, chain: Callable[[Switching], tuple[States, Array]]
    ) -> Num[Array, "trial bin neuron"]:
        batch = jax.tree.map(jnp.asarray, batch)
        networks = self.declare()
        switching = self.switching(networks, batch)
        with self.trials_plate(batch):
            _, x = chain(switching)
            law = networks.emissions.of_trials(batch.session).law(x, batch.observed)
            return numpyro.sample("y", law, obs=batch.y)

    def trials_plate(self, batch: Batch) -> AbstractContextManager:
        """The plate of trials, which program and guide share.

        The caller draws the mini-batches; the plate is there to scale them to the data set. Trials beyond the training
        set, as at test, are not scaled.
        """
        count = batch.lengths.shape[0]
        return numpyro.plate("trials", max(self.num_trials or count, count), subsample_size=count)

    def declare(self) -> Networks:
        """Register the networks' parameters with the enclosing program (or draw them from the prior on weights)."""
        if self.options.weight_prior is None:
            return Networks(*(eqx_module(n, m) for n, m in zip(Networks._fields, self.networks, strict=True)))
        prior = dist.Normal(0.0, self.options.weight_prior)
        drawn = [
            random_eqx_module(name, network, prior=dict.fromkeys(_weights(network), prior))
            for name, network in zip(Networks._fields, self.networks, strict=True)
        ]
        return Networks(*drawn)

    def initial_weights(self) -> dict[str, Array]:
        """Weights at the start, by the names of the sites, ``NAME/LEAF``, that they are where they have a prior."""
        parts = zip(Networks._fields, self.networks, strict=True)
        return {f"{name}/{leaf}": value for name, network in parts for leaf, value in _weights(network).items()}

    def dynamics_inputs(self, u: AnyArray) -> AnyArray:
        """The inputs that the dynamics read of u, (*batch, input): all of them, or none (width 0)."""
        return u if self.options.ux else u[..., :0]

    def networks_from(self, params: dict[str, Any]) -> Networks:
        """The networks with fitted parameters, as :meth:`declare` registered them.

        Weights with a prior are sites of their own, ``NAME/LEAF``, and taken from there where ``params`` holds them.
        """
        filled = []
        for name, network in zip(Networks._fields, self.networks, strict=True):
            fitted = jax.tree.map(lambda _, p: p, network, params[f"{name}$params"])
            prefix = f"{name}/"
            drawn = {site.removeprefix(prefix): v for site, v in params.items() if site.startswith(prefix)}
            if drawn:
                leaves, static = eqx.partition(fitted, eqx.is_inexact_array)
                fitted = eqx.combine(eqx_from_dict({**eqx_to_dict(leaves), **drawn}, tree=leaves), static)
            filled.append(fitted)
        return Networks(*filled)

    def global_parameters(self, params: dict[str, Any]) -> dict[str, np.ndarray]:
        """Parameters that are read as such, by name: first states, transitions at x = 0, noise, loadings and laws."""
        return {name: np.asarray(value) for name, value in _global_parameters(self.networks_from(params)).items()}

    def switching(self, networks: Networks, batch: Batch) -> Switching:
        """p(z, x | u) of a batch as the two programs of the first bin and of every later one."""
        options, num_states = self.options, self.num_states
        num_inputs = batch.u.shape[-1]

        def initial(inputs: Array) -> tuple[States, Array]:
            logits = jnp.broadcast_to(networks.initial.state_logits, (inputs.shape[0], num_states))
            z = numpyro.sample("z", dist.Categorical(logits=logits))
            means = networks.initial.means[:, None]
            x = numpyro.sample("x", networks.initial.noise.around(select(means, z)))
            return z, x

        def transition(z: States, x: Array, inputs: Array, means: Array | None = None) -> tuple[States, Array]:
            u, stage = inputs[..., :num_inputs], inputs[..., num_inputs:]
            chosen = [f for f, used in ((x, options.xz), (u, options.uz), (stage, options.sz)) if used]
            features = jnp.concatenate(chosen, axis=-1) if chosen else jnp.zeros((*x.shape[:-1], 0), x.dtype)
            z = numpyro.sample("z", dist.Categorical(logits=select(networks.transitions.logits(features), z)))
            if means is None:
                means = trials_first(networks.dynamics.means, x, self.dynamics_inputs(u))
            x = numpyro.sample("x", networks.dynamics.noise.around(select(means, z)))
            return z, x

        inputs = jnp.swapaxes(jnp.concatenate([batch.u, batch.stage], axis=-1), 0, 1)
        return Switching(initial, transition, num_states, self.num_latents, inputs, batch.lengths, self.log_normalizer)


@jax.jit
def _global_parameters(networks: Networks) -> dict[str, Array]:
    return {
        "initial_prob": jax.nn.softmax(networks.initial.state_logits),
        "initial_mean": networks.initial.means,
        "initial_cholesky": networks.initial.noise.cholesky,
        "dynamics_cholesky": networks.dynamics.noise.cholesky,
        "transition_bias": networks.transitions.bias,
        "transition_weight": networks.transitions.weight,
        "readout_weight": networks.emissions.readout.weight,
        "readout_bias": networks.emissions.readout.bias,
        **{f"emission_{name}": values for name, values in networks.emissions.parameters().items()},
    }


def _weights(network: object) -> dict[str, Array]:
    """The weights of a network by leaf. Those of features that there are none of have no numbers to draw."""
    leaves = eqx_to_dict(eqx.filter(network, eqx.is_inexact_array))
    return {leaf: value for leaf, value in leaves.items() if "weight" in leaf and value.size}
