"""Constants of :mod:`mrsds_ppl.config.cost`, of the core on which numpy's turn in ``backend/speed.py`` takes 0.85 ms.

Least squares of relative errors, none below zero, over the cases of ``tests/benchmarks/cost_cases.json``; to find them
anew: ``python tests/benchmarks/cost.py measure``, then ``constants``. A kind of work that is zero here is covered by
those that come with it.
"""

# Seconds of each stage whatever the sizes: compiling, reading and writing.
ONCE = {
    "begin": 3.53,
    "first step": 9.7,
    "guide": 6.44,
    "linear": 13.3,
    "networks": 11.5,
    "posterior": 13.8,
    "scoring": 13.1,
    "smoothing": 4.19,
    "states": 11.9,
    "training": 0,
    "warm-up": 0.258,
}
# Seconds a million.
SECONDS = {
    "chains": 0.00369,
    "coefficients": 4.97e-05,
    "directions": 0.00784,
    "entries": 0.0298,
    "expectations": 0.0105,
    "filter": 0.00315,
    "gradients": 0.000239,
    "information": 0.018,
    "products": 0.000377,
    "readouts": 0.000387,
    "regressions": 0.393,
    "signals": 0.016,
    "tangents": 0.000539,
    "updates": 0.127,
    "values": 0.305,
}
# Megabytes a million numbers; "once" is what any fit needs.
MEGABYTES = {
    "batch": 7.13,
    "matrices": 37.6,
    "once": 1.28e03,
    "signals": 84.8,
}
