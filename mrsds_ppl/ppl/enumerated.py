"""A switching model in NumPyro's own idiom: discrete sites that funsor enumerates, and a plate of time.

:func:`enumerated` takes the two programs that :func:`mrsds_ppl.ppl.markov.markov` takes. Where that adds the path
with z summed, this adds one site for each factor of

    p(z, x) = p(z_1) p(x_1 | z_1) prod_t p(z_t | z_{t-1}, x_{t-1}, u_t) p(x_t | z_t, x_{t-1}, u_t):

    x         the whole path (trial | bin, latent), latent; scores its padded bins alone, since the next four score it
    _PREV_z   z_1 (trial)
    x_first   x_1, at the path (trial | latent)
    z         z_2 ... z_T (bin, trial), in the plate ``_time``
    x_next    x_2 ... x_T, at the path (bin, trial | latent), in the plate ``_time``

funsor knows by the names that ``_PREV_z`` is the state of the bin before along ``_time``, and sums the chain. Run
without enumeration the program has the same joint law: x is drawn bin after bin, and z given x.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints
from numpyro.distributions.util import is_identically_one
from numpyro.primitives import Messenger

from mrsds_ppl.errors import RunError
from mrsds_ppl.ppl.markov import Drawn, Switching, ancestral, potentials
from mrsds_ppl.statespace.chain import sample_path

_SUMMED_HERE = (
    "TraceMarkovEnum_ELBO() and funsor's log_density sum z on this program, and MarkovELBO() does on the model itself. "
    "NumPyro's own losses do not, TraceEnum_ELBO included."
)
# Stands for "impossible" and stays finite when a whole trial of such terms is added in float32.
_IMPOSSIBLE = -1e30


def enumerated(switching: Switching) -> tuple[Array | np.ndarray, Array]:
    """Add the sites above to the enclosing program, inside its plate of trials; return (z, x) as ``markov`` does.

    z is whatever the last site of states holds: all states under enumeration, (trial, bin) where it was drawn or given.

    Args:
        switching: the model.

    Raises:
        RunError: z is enumerated under a scale, as of a mini-batch, which would be taken into the sum over z; or by
            ``infer_discrete``, which cannot take the chain apart.
    """
    num_bins, num_trials = switching.inputs.shape[:2]
    drawn = Drawn(_SUMMED_HERE)
    x = numpyro.sample("x", PathInBins(switching, drawn))
    path = jnp.swapaxes(x, 0, 1)
    every = np.arange(switching.num_states)

    def first_state(logits: Array) -> dist.Distribution:
        return FirstState(logits, switching, x, drawn)

    # A chain of one bin has no later states that ``_PREV_z`` would be the ones before.
    name = "_PREV_z" if num_bins > 1 else "z"
    with _Bins(every, name, first_state, "x_first", path[0], jnp.ones(num_trials, bool)) as at_first:
        switching.initial(switching.inputs[0])
    first = at_first.states
    if num_bins == 1:
        return (first if isinstance(first, np.ndarray) else first[:, None]), x

    before = first if isinstance(first, np.ndarray) else every[:, None, None]
    valid = jnp.arange(1, num_bins)[:, None] < switching.lengths

    def next_states(logits: Array) -> dist.Distribution:
        return NextStates(_held(logits, valid), first, switching, x, drawn)

    with (
        numpyro.plate("_time", num_bins - 1, dim=-2),
        _Bins(every, "z", next_states, "x_next", path[1:], valid) as at_next,
    ):
        switching.transition(before, path[:-1], switching.inputs[1:])
    rest = at_next.states
    if isinstance(rest, np.ndarray) or isinstance(first, np.ndarray):
        return rest, x
    return jnp.concatenate([first[None], rest]).T, x


class PathInBins(dist.Distribution):
    """The site x: draws have the law of the model; the density is that of the padded bins, standard normal."""

    support = constraints.independent(constraints.real, 2)
    reparametrized_params: list[str] = []  # noqa: RUF012 - the name and type are numpyro's

    def __init__(self, switching: Switching, drawn: Drawn) -> None:
        self.switching, self.drawn = switching, drawn
        num_bins, num_trials = switching.inputs.shape[:2]
        super().__init__((num_trials,), (num_bins, switching.num_latents), validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample trial bin latent"]:
        self.drawn.path = True
        paths = _draws(lambda k: ancestral(self.switching, k)[1], key, sample_shape)
        return paths.reshape(sample_shape + self.batch_shape + self.event_shape)

    def log_prob(
        self, value: Float[Array, "*sample trial bin latent"], intermediates: None = None
    ) -> Float[Array, "*sample trial"]:
        self.drawn.check()
        padded = jnp.arange(value.shape[-2]) >= self.switching.lengths[:, None]
        return jnp.where(padded, dist.Normal(0.0, 1.0).log_prob(value).sum(-1), 0.0).sum(-1)


class FirstState(dist.CategoricalLogits):
    """p(z_1), batch (trial,). A draw is one of p(z_1 | x), since x is drawn before it."""

    def __init__(
        self,
        logits: Float[Array, "trial state"],
        switching: Switching,
        x: Float[Array, "trial bin latent"],
        drawn: Drawn,
    ) -> None:
        self.switching, self.x, self.drawn = switching, x, drawn
        super().__init__(logits, validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*sample trial"]:
        self.drawn.states = True
        chain = potentials(self.switching, self.x)
        states = _draws(lambda k: sample_path(k, chain)[0], key, sample_shape)
        return states.reshape(sample_shape + self.batch_shape)


class NextStates(dist.Distribution):
    """p(z_2 ... z_T | z_1, x), one factor a bin: batch (bin, trial), and left of it the state before where enumerated.

    Args:
        table: log p(z_t = to | z_{t-1} = from, x), (from, *, bin, trial, to).
        first: z_1, (trial,), or the constant of all states where it is enumerated.
        switching, x, drawn: what a draw of p(z_2 ... z_T | z_1, x) takes.
    """

    has_enumerate_support = True
    reparametrized_params: list[str] = []  # noqa: RUF012

    def __init__(
        self,
        table: Float[Array, "from *bins to"],
        first: Int[Array, " trial"] | np.ndarray,
        switching: Switching,
        x: Float[Array, "trial bin latent"],
        drawn: Drawn,
    ) -> None:
        self.table, self.first = table, first
        self.switching, self.x, self.drawn = switching, x, drawn
        whole = isinstance(first, np.ndarray)
        super().__init__(table.shape[0 if whole else -3 : -1], (), validate_args=False)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.switching.num_states - 1)

    def enumerate_support(self, expand: bool = True) -> Int[Array, "state *batch"]:
        states = jnp.arange(self.switching.num_states).reshape((-1,) + (1,) * len(self.batch_shape))
        return jnp.broadcast_to(states, states.shape[:1] + self.batch_shape) if expand else states

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*sample bin trial"]:
        if isinstance(self.first, np.ndarray):
            raise _half_enumerated()
        self.drawn.states = True
        chain = potentials(self.switching, self.x)
        known = self.first == np.arange(self.switching.num_states)[:, None]
        chain = chain._replace(initial=jnp.where(known, 0.0, jnp.asarray(_IMPOSSIBLE, chain.initial.dtype)))
        states = _draws(lambda k: sample_path(k, chain)[1:], key, sample_shape)
        return states.reshape(sample_shape + self.batch_shape)

    def log_prob(self, value: Int[Array, "*states bin trial"], intermediates: None = None) -> Array:
        whole = value.ndim > len(self.batch_shape)
        if isinstance(self.first, np.ndarray) and whole:
            # Over all states the density is the table with its last axis moved to that of the states, without a gather.
            table = self.table.reshape((1,) * (value.ndim + 1 - self.table.ndim) + self.table.shape)
            return jnp.swapaxes(table, -1, 0)[..., 0]
        if isinstance(self.first, np.ndarray) or whole:
            raise _half_enumerated()
        num_steps, num_trials = self.batch_shape
        # infer_discrete gives the first state along with the others.
        path = value if value.shape[0] > num_steps else jnp.concatenate([self.first[None], value])
        bins, trials = np.ogrid[:num_steps, :num_trials]
        return self.table[path[:-1], bins, trials, path[1:]]


class _Bins(Messenger):
    """Renames the sites of one of the two programs, marks z to be enumerated and scores x at the path.

    Args:
        every: all states.
        state_site, path_site: names that z and x get.
        law: the law of z for the logits that the program computed.
        path: values of x, (*bins, trial | latent).
        valid: bins that count, (*bins, trial).
    """

    def __init__(
        self,
        every: np.ndarray,
        state_site: str,
        law: Callable[[Array], dist.Distribution],
        path_site: str,
        path: Float[Array, "*bins latent"],
        valid: Bool[Array, "*bins"],
    ) -> None:
        super().__init__(None)
        self.every, self.state_site, self.law = every, state_site, law
        self.path_site, self.path, self.valid = path_site, path, valid
        self.states: Array | np.ndarray = every

    def __enter__(self) -> "_Bins":
        super().__enter__()
        return self

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if msg["name"] == "z":
            msg["name"], msg["fn"] = self.state_site, self.law(msg["fn"].logits)
            msg["infer"]["enumerate"] = "parallel"
        elif msg["name"] == "x":
            msg["name"], msg["fn"] = self.path_site, msg["fn"].mask(self.valid)
            msg["value"], msg["is_observed"] = self.path, True

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["name"] != self.state_site:
            return
        shape = msg["value"].shape
        if len(shape) > len(msg["fn"].batch_shape):
            if msg["scale"] is not None and not is_identically_one(msg["scale"]):
                raise RunError(
                    f"The states z are summed under a scale of {msg['scale']:.6g}, which would sum powers of p(z, x). "
                    "TraceMarkovEnum_ELBO() scales after the sum; everything else needs all trials in one batch, "
                    "or a model with num_trials=None."
                )
            if self.valid.ndim == 2 and self.valid.shape[0] > 1 and _taken_apart():
                raise RunError(
                    "NumPyro's infer_discrete does not get back through a chain of more than two bins, of this "
                    "program or of any other. Predictive(model.enumerated, {'x': x}) draws z given x, exactly."
                )
            # The programs see a constant, of whose entries nothing has to be gathered.
            msg["value"] = self.every.reshape(shape)
        elif len(shape) == 2:
            # NumPyro's infer_discrete puts the first state in front of the others.
            msg["value"] = msg["value"][-self.valid.shape[0] :]
        self.states = msg["value"]


def _held(logits: Float[Array, "from *bins to"], valid: Bool[Array, "bin trial"]) -> Float[Array, "from *bins to"]:
    """log p(z_t | z_{t-1}); padded bins keep the state."""
    num_states = logits.shape[-1]
    stay = jnp.where(jnp.eye(num_states, dtype=bool), 0.0, jnp.asarray(_IMPOSSIBLE, logits.dtype))
    stay = stay.reshape((num_states,) + (1,) * (logits.ndim - 2) + (num_states,))
    return jnp.where(valid[..., None], jax.nn.log_softmax(logits, axis=-1), stay)


def _draws(draw: Callable[[Array], Array], key: Array, sample_shape: tuple[int, ...]) -> Array:
    return lax.map(draw, jax.random.split(key, int(np.prod(sample_shape, dtype=int))))


def _taken_apart() -> bool:
    """Whether infer_discrete runs the program; it alone does under funsor's lazy interpretation."""
    funsor = sys.modules.get("funsor")
    return funsor is not None and funsor.interpreter.get_interpretation() is funsor.interpretations.lazy


def _half_enumerated() -> RunError:
    return RunError("Of the sites _PREV_z and z one is enumerated and the other given. Give both, or enumerate both.")
