"""A program linearised around a path of each trial: the arrays that smoother and filter take.

Around a path m,

    f_k(x) ~ F_tk x + b_tk,      log p(y_t | x) ~ c_t + h_t^T x - x^T J_t x / 2,
    J_t = G^T I G (Fisher scoring),   h_t = J_t m_t + grad log p(y_t | m_t),   G = dE(y_t)/dx,

with I the Fisher information of y_t about E(y_t), which is 1 / var(y_t) for Gaussian signals and counts.

A message that hears its source alone has derivatives along the latents of that region and no others. So where dynamics
say their messages, one derivative along a latent of every region at once serves all of them, and F_tk takes as many as
the widest region has latents; of their sum alone it takes one for every latent of all regions.
"""

from itertools import combinations_with_replacement
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.dynamics import Dynamics, Messages, StateDynamics
from mrsds_ppl.models.emissions.sessions import SomeEmissions
from mrsds_ppl.models.initial import Initial
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.statespace.linear_gaussian import (
    Inputs,
    Latents,
    LinearSteps,
    SharedTerms,
    SignalTerms,
    States,
    TrialTerms,
    linearise,
    valid_bins,
)
from mrsds_ppl.statespace.smoothing import log_steps


@runtime_checkable
class Program(Protocol):
    """Parts of a program that is linearised; its dynamics may be of any form."""

    @property
    def initial(self) -> Initial: ...

    @property
    def dynamics(self) -> StateDynamics: ...

    @property
    def emissions(self) -> SomeEmissions: ...


@runtime_checkable
class SumOfMessages(Protocol):
    """Dynamics that say their messages, and whether each message between regions hears its source alone."""

    @property
    def latent_sizes(self) -> tuple[int, ...]: ...

    @property
    def hears_source_alone(self) -> bool: ...

    def messages(self, x: Float[Array, "row latents"], u: Float[Array, "row input"]) -> Messages: ...


def with_dynamics(networks: Networks, dynamics: StateDynamics) -> Networks:
    """The networks with dynamics of any form, of which only means and noise may be read."""
    return networks._replace(dynamics=cast(Dynamics, dynamics))


def shared_terms(program: Program) -> SharedTerms:
    """The first bin and Q, which linearising leaves as they are."""
    first, noise = program.initial.noise.cholesky, program.dynamics.noise.cholesky
    return SharedTerms(
        first_log_prob=jax.nn.log_softmax(program.initial.state_logits),
        first_means=program.initial.means,
        first_covariance=first @ first.T,
        noise_covariance=noise @ noise.T,
    )


def linearised(networks: Networks, model: MRSDS, batch: Batch, x: Latents) -> TrialTerms:
    """A model of some networks around paths.

    Args:
        networks: of the model; the dynamics may be any that have means and noise.
        model: which says what drives the states.
        batch: the trials.
        x: their paths.
    """
    moves = jnp.moveaxis(potentials(model.switching(networks, batch), x).transition, -1, 0)
    return linearised_with(networks, batch, x, model.dynamics_inputs(batch.u), moves)


def linearised_with(
    program: Program, batch: Batch, x: Latents, u: Inputs, log_transition: Float[Array, "trial pair from to"]
) -> TrialTerms:
    """A program around paths, with the transitions and the inputs of the dynamics given."""
    dynamics = program.dynamics
    if isinstance(dynamics, SumOfMessages) and dynamics.hears_source_alone:
        steps = linearise_messages(dynamics, x, u)
    else:
        steps = linearise(dynamics.means, x, u)
    signals = signal_terms(program.emissions, batch, x)
    return TrialTerms(steps, signals, log_transition, jnp.asarray(batch.lengths))


def linearise_messages(dynamics: SumOfMessages, x: Latents, u: Inputs) -> LinearSteps:
    """f_k(x, u) ~ F_tk x + b_tk, as :func:`mrsds_ppl.statespace.linear_gaussian.linearise` gives them.

    Args:
        dynamics: whose messages between regions hear their source alone.
        x: the path.
        u: inputs that the dynamics read; width 0 for none.
    """
    trials, bins, latents = x.shape
    before, inputs = x[:, :-1].reshape(-1, latents), u[:, 1:].reshape(trials * (bins - 1), u.shape[-1])
    sizes = dynamics.latent_sizes
    regions, width = len(sizes), max(sizes)
    same = np.eye(regions, dtype=bool)[:, :, None, None]
    within = np.concatenate([np.arange(size) for size in sizes])
    slots = np.repeat(np.arange(regions) * width, sizes) + within

    def told(rows: Array) -> Array:
        found = dynamics.messages(rows, inputs)
        own = found.local + found.inputs.sum(2)
        return found.cross + jnp.where(same, own[:, :, None], 0.0)

    values, along = jax.linearize(told, before)
    axes = jnp.asarray(within == np.arange(width)[:, None], x.dtype)
    columns = lax.map(lambda axis: along(jnp.broadcast_to(axis, before.shape)), axes)
    num_states = values.shape[0]
    # (within, state, target, source, row, latent) to (row, state, latent of the target, latent of the source).
    square = jnp.transpose(columns, (4, 1, 2, 5, 3, 0)).reshape(len(before), num_states, *2 * (regions * width,))
    gain = square[..., slots[:, None], slots]
    total = jnp.transpose(values.sum(2), (2, 0, 1, 3)).reshape(len(before), num_states, regions * width)[..., slots]
    offset = total - jnp.einsum("rkij,rj->rki", gain, before)
    shape = (trials, bins - 1, num_states)
    return LinearSteps(gain.reshape(*shape, latents, latents), offset.reshape(*shape, latents))


def signal_terms(emissions: SomeEmissions, batch: Batch, x: Latents) -> SignalTerms:
    """Gaussian terms of the signals that an encoder may see, around a path; padded bins have none."""
    emissions = emissions.of_trials(batch.session)
    seen, signals = _seen(batch)

    def log_prob(path: Array) -> tuple[Array, Array]:
        each = emissions.law(path, seen).log_prob(signals)
        return each.sum(), each

    slope, each = jax.grad(log_prob, has_aux=True)(x)
    weight = jnp.where(seen, emissions.information(emissions.activity(x)), 0.0)

    # A neuron sees one region, so that one derivative serves a latent of every region at once.
    sizes, owner = emissions.readout.latent_sizes, emissions.readout.owner()
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    member = jnp.asarray(owner[:, None] == np.arange(len(sizes)), x.dtype)

    def column(within: int) -> Array:
        axis = np.zeros(x.shape[-1])
        axis[[start + within for start, size in zip(starts, sizes, strict=True) if within < size]] = 1.0
        return jax.jvp(emissions.activity, (x,), (jnp.broadcast_to(jnp.asarray(axis, x.dtype), x.shape),))[1]

    columns = [column(within) for within in range(max(sizes))]
    precision = jnp.zeros((*x.shape, x.shape[-1]), x.dtype)
    for i, j in combinations_with_replacement(range(max(sizes)), 2):
        regions = [r for r, size in enumerate(sizes) if j < size]
        block = ((columns[i] * weight * columns[j]) @ member)[..., regions]
        rows, others = starts[regions] + i, starts[regions] + j
        precision = precision.at[..., rows, others].set(block).at[..., others, rows].set(block)
    curved = jnp.einsum("btij,btj->bti", precision, x)
    return SignalTerms(precision, curved + slope, each - (x * (slope + curved / 2)).sum((1, 2)))


def path_log_density(
    program: Program, shared: SharedTerms, batch: Batch, u: Inputs, states: States, x: Latents
) -> Float[Array, " trial"]:
    """log p(y, x | z) of each trial, averaged over its states: what a smoother seeks the largest of. Up to a constant.

    Args:
        program, shared: not linearised.
        batch: the trials.
        u: inputs that the dynamics read; width 0 for none.
        states: probabilities.
        x: paths.
    """
    seen, signals = _seen(batch)
    means = jnp.moveaxis(program.dynamics.means(x[:, :-1], u[:, 1:]), 0, 2)
    told = program.emissions.of_trials(batch.session).law(x, seen).log_prob(signals)
    return told + log_steps(shared, jnp.asarray(batch.lengths), states, x, means)


def _seen(batch: Batch) -> tuple[Bool[Array, "trial bin neuron"], Float[Array, "trial bin neuron"]]:
    """Which signals an encoder may see, and these; 0 elsewhere."""
    seen = batch.observed & batch.visible & valid_bins(batch.lengths, batch.y.shape[1])[..., None]
    return seen, jnp.where(seen, batch.y, 0.0)
