"""How fast a core of this machine is, beside the core that the costs of a fit were measured on."""

import time
from functools import cache

import numpy as np

# Seconds that one turn below takes on that core; see tests/benchmarks/cost.py.
_REFERENCE = 0.00085
_NETWORKS, _ROWS, _WIDTH, _TURNS = 64, 200, 32, 20


def core_seconds() -> float:
    """Seconds of computing that products of small matrices and a tanh take, the least of some turns: 0.1 s in all."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_NETWORKS, _ROWS, _WIDTH)).astype(np.float32)
    weights = rng.normal(size=(_NETWORKS, _WIDTH, _WIDTH)).astype(np.float32)
    least = np.inf
    for _ in range(_TURNS):
        # Time of this thread: what else the machine does is not counted.
        began = time.thread_time()
        np.matmul(np.tanh(np.matmul(rows, weights)), weights).sum(1)
        least = min(least, time.thread_time() - began)
    return least


@cache
def slowness() -> float:
    """How many times as long as the reference core a core of this machine takes; measured once in a process."""
    return core_seconds() / _REFERENCE
