"""Constants of :mod:`mrsds_ppl.config.cost`, of the core on which numpy's turn in ``backend/speed.py`` takes 0.85 ms.

Least squares of relative errors, none below zero, over the cases of ``tests/benchmarks/cost_cases.json``; to find them
anew: ``python tests/benchmarks/cost.py measure``, then ``constants``. A kind of work that is zero here is covered by
those that come with it.
"""

# Seconds of each stage whatever the sizes: compiling, reading and writing.
ONCE = {
    "begin": 3.88,
    "first step": 9.81,
    "linear": 13.5,
    "networks": 11.6,
    "posterior": 14.7,
    "smoothing": 4.2,
    "states": 11.8,
    "training": 0,
    "warm-up": 0.206,
    "guide": 9.81,
}
# Seconds a million.
SECONDS = {
    "chains": 0.00403,
    "entries": 0.0297,
    "filter": 0.00327,
    "gradients": 0.000246,
    "information": 0.0176,
    "products": 0.000378,
    "readouts": 0.000349,
    "regressions": 0.195,
    "signals": 0.0153,
    "tangents": 0.000499,
    "updates": 0.123,
}
# Megabytes a million numbers; "once" is what any fit needs.
MEGABYTES = {
    "batch": 7.08,
    "matrices": 20.1,
    "once": 1.26e03,
    "predicted": 52.9,
    "signals": 0,
}
