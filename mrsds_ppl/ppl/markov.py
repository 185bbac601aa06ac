"""A NumPyro primitive for switching models: discrete states z, enumerated exactly, driving a continuous path x.

The user writes two small programs with a discrete site ``z`` and a continuous site ``x`` each,

    initial(u_1)                 ->  z_1 ~ p(z_1),                    x_1 ~ p(x_1 | z_1)
    transition(z, x, u_t)        ->  z_t ~ p(z_t | z_{t-1}, x_{t-1}, u_t),   x_t ~ p(x_t | z_t, x_{t-1}, u_t)

and :func:`markov` adds two sites to the enclosing program: ``x``, the whole path with the law

    p(x) = sum_z p(z_1) p(x_1 | z_1) prod_t p(z_t | z_{t-1}, x_{t-1}, u_t) p(x_t | z_t, x_{t-1}, u_t),

and ``z`` with p(z | x), so that the two together have the joint law of the programs. Sampling runs the programs bin
after bin (ancestral); the density runs ``transition`` once, for all bins and all pairs of states.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.distributions import CategoricalLogits, CategoricalProbs, constraints
from numpyro.primitives import Messenger

from mrsds_ppl.errors import RunError
from mrsds_ppl.statespace.chain import (
    Chain,
    LogNormalizer,
    forward_filter,
    hold_after,
    path_log_weight,
    sample_path,
    sequential_log_normalizer,
)

# (z, x); where z is enumerated, it is the constant numpy array of all states.
Program = Callable[..., tuple[Any, Array]]


class Switching(NamedTuple):
    """A switching model of a batch of trials: the two programs and what they are run on.

    ``inputs`` is time-major (bin, trial, input); ``lengths`` (trial,) counts the valid bins. In padded bins x has a
    standard normal law, so that every path has a proper density; guides of this package use the same law there, and
    the two cancel.
    """

    initial: Program
    transition: Program
    num_states: int
    num_latents: int
    inputs: Array
    lengths: Array
    log_normalizer: LogNormalizer = sequential_log_normalizer


class Evaluated(NamedTuple):
    """What a guide evaluated of the transition program, at its own draw of the path, on the way to that draw.

    A guide that leaves it among the intermediates of the site ``x`` spares the density the same work: the program then
    gets ``values`` as a fourth argument, ``transition(z, x, u_t, values)``, with a row for each bin from the second on.
    """

    values: Array


def markov(switching: Switching) -> tuple[Array, Array]:
    """Add the sites ``x`` (trial | bin, latent) and ``z`` (trial | bin) to the enclosing program; return (z, x)."""
    drawn = Drawn(_SUMMED_HERE)
    x = numpyro.sample("x", PathLaw(switching, drawn))
    z = numpyro.sample("z", StateLaw(switching, x, drawn), infer={"enumerate": "parallel"})
    return z, x


def select(table: Array, z: Array | np.ndarray, event_dim: int = 1) -> Array:
    """Entry ``z`` of a table whose leading axis is the state: (state, *batch, *event) -> (*batch, *event).

    Under enumeration z is the constant array of all states along an axis of its own left of the batch, and the
    entries are the table itself with its leading axis moved there; nothing is gathered.

    Args:
        table: one entry a state.
        z: states.
        event_dim: number of axes of an entry's event.
    """
    if isinstance(z, np.ndarray):
        batch_dim = table.ndim - 1 - event_dim
        return table.reshape(table.shape[:1] + (1,) * (z.ndim - 1 - batch_dim) + table.shape[1:])
    index = z.reshape((1, *z.shape) + (1,) * (table.ndim - 1 - z.ndim))
    return jnp.take_along_axis(table, index, axis=0)[0]


class summed_out(Messenger):  # lower case as numpyro's handlers are
    """Handler: sites marked ``infer={"enumerate": "parallel"}`` that carry p(z | x) are summed over, not sampled.

    Their sum is one, since the density of x already holds the sum over z. With it any inference of NumPyro that
    needs a differentiable density runs on the program: ``NUTS(summed_out(model))``, ``AutoNormal(summed_out(model))``.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and isinstance(msg["fn"], StateLaw) and msg["value"] is None:
            msg["type"] = "summed_out"
            msg["stop"] = True
            msg["value"] = jnp.zeros(msg["fn"].shape(), int)


_SUMMED_HERE = (
    "MarkovELBO() sums z on this program, as summed_out(model) does for NUTS and NumPyro's own losses; "
    "TraceMarkovEnum_ELBO() and funsor's log_density sum z on model.enumerated."
)


@dataclass
class Drawn:
    """Whether one run of a program drew its path and its states itself.

    A density of a path that was given beside states that were drawn is neither that of the path nor that of the two
    at given states: log p(x, z) at a draw of z lies below log p(x), by a number that nobody asked for.
    """

    remedy: str
    path: bool = False
    states: bool = False

    def check(self) -> None:
        """Raise a RunError where the states were drawn beside a path that was given."""
        if self.states and not self.path:
            raise RunError(
                f"The states z were drawn, not summed, beside a given path x. {self.remedy} "
                "To score states of your own, give z as well as x."
            )


class PathLaw(dist.Distribution):
    """p(x) of a switching model with its discrete states summed out: batch (trial,), event (bin, latent)."""

    support = constraints.independent(constraints.real, 2)
    reparametrized_params: list[str] = []  # noqa: RUF012 - the name and type are numpyro's

    def __init__(self, switching: Switching, drawn: Drawn | None = None) -> None:
        self.switching = switching
        self.drawn = drawn or Drawn(_SUMMED_HERE)
        num_bins, num_trials = switching.inputs.shape[:2]
        super().__init__((num_trials,), (num_bins, switching.num_latents), validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample trial bin latent"]:
        self.drawn.path = True
        keys = jax.random.split(key, int(np.prod(sample_shape, dtype=int)))
        _, paths = lax.map(lambda k: ancestral(self.switching, k), keys)
        return paths.reshape(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(
        self, value: Float[Array, "*sample trial bin latent"], intermediates: list[Evaluated] | None = None
    ) -> Float[Array, "*sample trial"]:
        self.drawn.check()
        if value.ndim > 3:
            return jax.vmap(self.log_prob)(value)
        chain = potentials(self.switching, value, intermediates[0] if intermediates else None)
        padded = jnp.arange(value.shape[1]) >= self.switching.lengths[:, None]
        outside = jnp.where(padded, dist.Normal(0.0, 1.0).log_prob(value).sum(-1), 0.0).sum(-1)
        return self.switching.log_normalizer(chain) + outside


class StateLaw(dist.Distribution):
    """p(z | x) of a switching model: batch (trial,), event (bin,). Padded bins hold the last state."""

    reparametrized_params: list[str] = []  # noqa: RUF012
    has_enumerate_support = True  # says NumPyro, and whoever then enumerates is told what to do instead

    def __init__(self, switching: Switching, x: Float[Array, "trial bin latent"], drawn: Drawn | None = None) -> None:
        self.switching = switching
        self.x = x
        self.drawn = drawn or Drawn(_SUMMED_HERE)
        super().__init__((x.shape[0],), (x.shape[1],), validate_args=False)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.switching.num_states - 1), 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*sample trial bin"]:
        self.drawn.states = True
        chain = potentials(self.switching, self.x)
        keys = jax.random.split(key, int(np.prod(sample_shape, dtype=int)))
        paths = lax.map(lambda k: sample_path(k, chain).T, keys)
        return paths.reshape(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(self, value: Int[Array, "trial bin"], intermediates: None = None) -> Float[Array, " trial"]:
        chain = potentials(self.switching, self.x)
        return path_log_weight(chain, value.T) - forward_filter(chain).log_normalizer

    def enumerate_support(self, expand: bool = True) -> Array:
        raise RunError(f"The site z holds whole paths of states, too many to enumerate. {_SUMMED_HERE}")


def potentials(switching: Switching, x: Float[Array, "trial bin latent"], evaluated: Evaluated | None = None) -> Chain:
    """Log potentials of the chain z given a path x: every factor of p(z, x), for all bins and pairs of states at once.

    initial[k] = log p(z_1=k) + log p(x_1 | z_1=k),  transition[t, j, k] = log p(z_t=k | z_{t-1}=j, x_{t-1}, u_t),
    evidence[t, k] = log p(x_t | z_t=k, x_{t-1}, u_t).

    Args:
        switching: the model.
        x: the path.
        evaluated: what is known of its transitions at that path.
    """
    path = jnp.swapaxes(x, 0, 1)
    every = np.arange(switching.num_states)
    first = _factors(switching.initial, every[:, None], path[0], switching.inputs[0])
    rest = _factors(
        switching.transition,
        every[:, None, None],
        path[1:],
        every[:, None, None, None],
        path[:-1],
        switching.inputs[1:],
        *(evaluated or ()),
    )
    num_pairs, num_trials = path.shape[0] - 1, path.shape[1]
    shape = (switching.num_states, switching.num_states, num_pairs, num_trials)
    chain = Chain(
        initial=jnp.broadcast_to(first.state, (shape[1], num_trials)) + first.path,
        transition=jnp.moveaxis(jnp.broadcast_to(rest.state, shape), 2, 0),
        evidence=jnp.moveaxis(jnp.broadcast_to(rest.path, shape[1:]), 1, 0),
    )
    return hold_after(chain, switching.lengths)


def ancestral(
    switching: Switching, key: Array, start: tuple[Array, Array] | None = None
) -> tuple[Int[Array, "trial bin"], Float[Array, "trial bin latent"]]:
    """Sample (z, x) bin after bin, from the initial program or onward from a given first (z, x) of each trial.

    Args:
        switching: the model; its ``lengths`` do not matter here but for the law of padded bins.
        key: random key.
        start: state (trial,) and latents (trial, latent) of the first bin.
    """
    first_key, scan_key, pad_key = jax.random.split(key, 3)
    if start is None:
        start = _run(switching.initial, first_key, switching.inputs[0])

    def step(state, inputs_and_key):
        inputs, bin_key = inputs_and_key
        state = _run(switching.transition, bin_key, *state, inputs)
        return state, state

    keys = jax.random.split(scan_key, switching.inputs.shape[0] - 1)
    _, rest = lax.scan(step, start, (switching.inputs[1:], keys))
    z, x = (jnp.swapaxes(jnp.concatenate([a[None], b]), 0, 1) for a, b in zip(start, rest, strict=True))
    padded = jnp.arange(x.shape[1]) >= switching.lengths[:, None]
    return z, jnp.where(padded[..., None], jax.random.normal(pad_key, x.shape, x.dtype), x)


class _Factors(NamedTuple):
    state: Array  # log p(z), the axis of z third from the right (second at the first bin)
    path: Array  # log p(x | z), likewise


class _Given(Messenger):
    """Gives z all its states and x its path, and notes the log density of each."""

    def __init__(self, states: np.ndarray, path: Array) -> None:
        super().__init__(None)
        self.states, self.path = states, path
        self.factors: dict[str, Array] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if isinstance(msg["fn"], CategoricalLogits | CategoricalProbs):
            # Over its whole support a categorical's density is its table of log probabilities; log_prob would
            # broadcast the table against every state and gather. The states' axis, of size one in the table's batch,
            # is the one that the table's last axis goes to.
            table = jax.nn.log_softmax(msg["fn"].logits, axis=-1)
            table = table.reshape((1,) * (self.states.ndim + 1 - table.ndim) + table.shape)
            self.factors["state"] = jnp.swapaxes(table, -1, -self.states.ndim - 1)[..., 0]
            msg["value"] = self.states
        else:
            self.factors["path"] = msg["fn"].log_prob(self.path)
            msg["value"] = self.path
        msg["stop"] = True


def _factors(program: Program, states: np.ndarray, path: Array, *args: object) -> _Factors:
    given = _Given(states, path)
    with handlers.block(), given:
        program(*args)
    return _Factors(**given.factors)


def _run(program: Program, key: Array, *args: object) -> tuple[Array, Array]:
    with handlers.block(), handlers.seed(rng_seed=key):
        return program(*args)
