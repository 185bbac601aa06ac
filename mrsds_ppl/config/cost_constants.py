"""Constants of :mod:`mrsds_ppl.config.cost`, of the core on which numpy's turn in ``backend/speed.py`` takes 0.85 ms.

Least squares of relative errors, none below zero, over the cases of ``tests/benchmarks/cost_cases.json``; to find them
anew: ``python tests/benchmarks/cost.py measure``, then ``constants``. A kind of work that is zero here is covered by
those that come with it.
"""

# Seconds of each stage whatever the sizes: compiling, reading and writing.
ONCE = {
    "ascent": 26.1,
    "begin": 3.39,
    "first step": 9.74,
    "guide": 7.68,
    "linear": 13.6,
    "networks": 11.1,
    "posterior": 13.1,
    "scoring": 13.3,
    "smoothing": 4.03,
    "states": 11.7,
    "training": 0,
    "warm-up": 0.286,
}
# Seconds a million.
SECONDS = {
    "chains": 0.00186,
    "coefficients": 0.000102,
    "directions": 0.00975,
    "entries": 0.0258,
    "expectations": 0.00987,
    "filter": 0.00295,
    "gradients": 0.000255,
    "information": 0.0352,
    "products": 0.000398,
    "readouts": 0.000655,
    "regressions": 0,
    "signals": 0.00658,
    "tangents": 0.000198,
    "updates": 0.12,
    "values": 0.309,
}
# Megabytes a million numbers; "once" is what any fit needs.
MEGABYTES = {
    "batch": 7.15,
    "matrices": 70,
    "once": 1.42e03,
    "signals": 81.7,
}
