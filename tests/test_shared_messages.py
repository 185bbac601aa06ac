"""Messages whose hidden layers are those of the source: what they equal, and what reads them."""

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.analysis.weights import changes
from mrsds_ppl.analysis.weights.tangents import tangents
from mrsds_ppl.models import DynamicsOptions
from mrsds_ppl.models.dynamics import Dynamics, Rows, every_message


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def made(sizes=(2, 1, 3), num_states=2, **options):
    chosen = {"layers": (4, 3), "activations": ("tanh", "tanh"), "communication_type": "additive-shared", **options}
    return by_hand.filled(lambda: Dynamics(num_states, sizes, 1, DynamicsOptions(**chosen), key=random.key(0)))


def rows(dynamics, count=5):
    rng = np.random.default_rng(1)
    return tuple(jnp.asarray(rng.normal(size=(count, width))) for width in (sum(dynamics.latent_sizes), 1))


@pytest.mark.parametrize(
    ("sizes", "num_states", "options"),
    [
        ((2, 1, 3), 2, {}),
        ((2, 2), 2, {"zcond": True}),
        ((3,), 1, {}),
        ((2, 1), 2, {"layers": (), "activations": ()}),
    ],
    ids=["unequal regions", "one set of networks", "one region, one state", "linear"],
)
def test_additive_networks_that_begin_alike_say_the_same_and_their_gradients_add_up(sizes, num_states, options):
    shared = made(sizes, num_states, **options)
    apart, (x, u) = shared.unshared(), rows(shared)
    mark = random.normal(random.key(5), (num_states, len(x), sum(sizes)))
    assert apart.options.communication_type == "additive"
    assert apart.sent is None

    def marked(dynamics, x):
        return (dynamics.means(x, u) * mark).sum()

    (own, of_path), (each, path) = jax.jit(lambda: [jax.grad(marked, (0, 1))(d, x) for d in (shared, apart)])()
    np.testing.assert_allclose(*(jax.jit(lambda d: d.means(x, u))(d) for d in (shared, apart)), rtol=1e-12)
    np.testing.assert_allclose(of_path, path, rtol=1e-10, atol=1e-12)
    hidden, others = 0 if own.sent is None else len(own.sent.weights), ~np.eye(len(sizes), dtype=bool)
    for part in ("weights", "biases"):
        layers = [np.asarray(layer) for layer in getattr(each.pairs, part)]
        # A source's layer moves as the layers of its messages do together, the local network as it did.
        for layer in range(hidden):
            together = np.where(others.reshape(others.shape + (1,) * (layers[layer].ndim - 3)), layers[layer], 0.0)
            together = together.sum(1, keepdims=True)
            np.testing.assert_allclose(getattr(own.sent, part)[layer], together, rtol=1e-10, atol=1e-12)
        found = np.asarray(getattr(own.pairs, part)[0])
        np.testing.assert_allclose(found[:, others], layers[-1][:, others], rtol=1e-10, atol=1e-12)
        assert not np.any(found[:, ~others])
        for local, layer in zip(getattr(own.local, part), layers, strict=True):
            np.testing.assert_allclose(local, layer[:, ~others], rtol=1e-10, atol=1e-12)


def test_what_a_source_sends_is_computed_once_for_all_targets():
    sizes, layers = (2,) * 6, (5, 4)
    counts = {
        kind: sum(leaf.size for leaf in jax.tree.leaves(made(sizes, layers=layers, communication_type=kind).pairs))
        for kind in ("additive", "additive-shared")
    }
    sent = made(sizes, layers=layers).sent
    assert [weight.shape for weight in sent.weights] == [(2, 1, 6, 2, 5), (2, 1, 6, 5, 4)]
    assert counts == {"additive": 2 * 36 * (15 + 24 + 10), "additive-shared": 2 * 36 * 10}


def test_directions_of_shared_messages_are_those_of_each_message_by_itself():
    shared = made((2, 1), layers=(3,), activations=("tanh",))
    rng = np.random.default_rng(0)
    steps = Rows(
        *(jnp.asarray(a) for a in (rng.normal(size=(30, 3)), rng.normal(size=(30, 1)), rng.dirichlet([1, 1], 30)))
    )
    found, apart = (tangents(random.key(1), d, steps, count=3) for d in (shared, shared.unshared()))
    np.testing.assert_allclose(found.scales, apart.scales, rtol=1e-9)
    # One message changes, and no other of the same source does.
    coefficients = jnp.zeros(found.scales.shape).at[0, 0, 1].set(0.3)
    x, u = steps.x, steps.u
    moved = jax.jit(lambda: changes(found, coefficients).messages(shared, x, u) - every_message(shared, x, u))()
    assert np.abs(moved[0, 0, 1]).max() > 1e-3
    np.testing.assert_allclose(np.delete(moved.reshape(2 * 2 * 3, -1), 1, axis=0), 0.0, atol=1e-10)
