"""What a fit costs before it starts: seconds of computing on a CPU, stage by stage, and memory; no JAX.

Each stage is a few kinds of work, counted in millions from the sizes: products of networks, readouts, matrices of the
latents. :mod:`mrsds_ppl.config.cost_constants` holds what a million of each kind was measured to take, wherever it
occurs, and what each stage takes once, which is compiling above all. ``tests/benchmarks/cost.py`` measures fits, prints
them beside these estimates, and finds the constants anew.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from mrsds_ppl.config.cost_constants import MEGABYTES, ONCE, SECONDS
from mrsds_ppl.config.fit_sizes import FitSizes

# Counts of each kind of work, in millions.
Work: TypeAlias = Mapping[str, float]
_MILLION = 1e-6
# Of the start by smoothing: steps of the linear program with one state and with several, rounds that find states, and
# rounds of the networks, with their steps of Adam, the trials of one, and the factors of Q that are tried on some.
_ONE_STATE_STEPS, _STEPS, _ROUNDS = 10, 30, 6
_NETWORK_ROUNDS, _REFIT_STEPS, _REFIT_TRIALS, _FACTORS, _FACTOR_TRIALS = 5, 400, 32, 4, 48
# Histories that the filter keeps: of training trials, under factors of Q, and of new trials, which begin under nine Q.
_KEPT, _KEPT_OF_FACTORS, _KEPT_OF_NEW, _LOOSENED = 16, 8, 32, 9
# Of the ascent: what the derivative of a filter takes in units of one, and steps of Adam, with their rows, on networks.
_SLOPE, _FITTED_STEPS, _FITTED_ROWS = 4, 2000, 256
_STATES_STEPS = 300  # of Adam, after an AR-HMM
# Of scoring: steps that directions are sought on, and how many shares of a step a round judges.
_SCORED_ROWS, _JUDGED = 3000, 2
# Draws by which bounds are weighed: 20 at once, four times for each 20 draws of a test trial.
_AT_ONCE, _WEIGHTS = 20, 4


class Cost(NamedTuple):
    """Seconds of computing by stage on the reference core, and megabytes at most."""

    stages: dict[str, float]
    megabytes: float

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(self.stages.values(), 0.0)


def cost_of(sizes: FitSizes) -> Cost:
    """The cost of a fit, its training taken to the last of its steps."""
    stages = {stage: ONCE[stage] + weighed(SECONDS, work) for stage, work in work_of(sizes).items()}
    return Cost(stages, weighed(MEGABYTES, held_by(sizes)))


def weighed(constants: Mapping[str, float], work: Work) -> float:
    """What some work takes."""
    return sum((constants[kind] * count for kind, count in work.items()), 0.0)


def work_of(sizes: FitSizes) -> dict[str, Work]:
    """Work of each stage that a fit has, in millions."""
    found: dict[str, Work] = {"begin": {"values": _bins(sizes, sizes.train + sizes.test) * sizes.neurons}}
    if sizes.start == "smoothing":
        found["linear"] = _linear(sizes)
        found |= {"ascent": _ascent(sizes)} if sizes.evidence_steps else {"networks": _networks(sizes)}
        if not sizes.per_trial:
            found["guide"] = _steps(sizes, 2 * sizes.start_steps)
    elif sizes.start == "staged":
        found |= {"warm-up": _steps(sizes, sizes.start_steps), "states": _states(sizes)}
    found |= {"first step": {}, "training": _steps(sizes, sizes.steps)}
    if sizes.scoring_rounds:
        found["scoring"] = _scored(sizes)
    if sizes.per_trial:
        found["smoothing"] = _smoothed(sizes, _bins(sizes, sizes.train))
    found["posterior"] = _posterior(sizes)
    return found


def _bins(sizes: FitSizes, trials: int) -> float:
    """Millions of bins of some trials, padding with them."""
    return _MILLION * trials * sizes.bins


def _steps(sizes: FitSizes, count: int) -> Work:
    """Steps of training: the program's density and its gradient on a batch, and Adam on all parameters."""
    bins = count * _bins(sizes, sizes.batch)
    entries = sizes.train * sizes.bins * sizes.latents**2 if sizes.per_trial else 0
    return {
        "gradients": bins * (sizes.products.messages + sizes.products.encoder),
        "readouts": bins * sizes.products.readout,
        "signals": bins * sizes.neurons,
        "chains": bins * sizes.latents**2,
        "entries": _MILLION * count * entries,
    }


def _linear(sizes: FitSizes) -> Work:
    """Smoothing and closed-form updates of the linear program, and finding its states."""
    several, bins = sizes.states > 1, _bins(sizes, sizes.train)
    steps = bins * (_ONE_STATE_STEPS + several * _STEPS)
    return {
        "updates": steps * sizes.neurons,
        "filter": several * _ROUNDS * bins * _histories(sizes, _KEPT),
    }


def _networks(sizes: FitSizes) -> Work:
    """Rounds of the networks: fitted to draws of the paths, noise that suits them, states, and smoothing."""
    bins = _bins(sizes, sizes.train)
    # Each state's networks are asked at their own steps.
    drawn = _REFIT_STEPS * _bins(sizes, min(_REFIT_TRIALS, sizes.train))
    tried = _FACTORS * _bins(sizes, min(_FACTOR_TRIALS, sizes.train))
    each = _added(
        {"gradients": drawn * sizes.products.messages / sizes.states},
        _smoothed(sizes, tried, _KEPT_OF_FACTORS),
        _smoothed(sizes, bins),
        _smoothed(sizes, bins, kept=0),
    )
    return {kind: _NETWORK_ROUNDS * count for kind, count in each.items()}


def _ascent(sizes: FitSizes) -> Work:
    """Steps of polynomials on the evidence, with paths, slope and information of each, and networks fitted to them."""
    bins, steps = _bins(sizes, sizes.train), sizes.evidence_steps
    paths = _smoothed(sizes, bins)
    return {
        "information": (steps + 1) * paths["information"],
        # The slope takes a filter that merges its histories into one of each state, and its derivative.
        "filter": (steps + 1) * paths["filter"] + steps * _SLOPE * bins * _histories(sizes, sizes.states),
        "coefficients": steps * bins * sizes.latents * sizes.polynomial_weights**2,
        "gradients": _MILLION * _FITTED_STEPS * _FITTED_ROWS * sizes.products.messages,
    }


def _scored(sizes: FitSizes) -> Work:
    """Rounds of scoring: what directions of each message add in every bin, their information, and steps judged."""
    bins = _bins(sizes, sizes.train)
    rows = _MILLION * min(_SCORED_ROWS, sizes.train * sizes.bins)
    told = {
        "directions": (bins + rows) * sizes.products.messages,
        "coefficients": bins * sizes.latents * sizes.coefficients**2,
    }
    judged = _added(_smoothed(sizes, bins), {"filter": bins * _histories(sizes, sizes.states)})
    count = 1 + _JUDGED * sizes.scoring_rounds
    return _added(*[told] * sizes.scoring_rounds, *[judged] * count)


def _smoothed(sizes: FitSizes, bins: float, kept: int = _KEPT) -> Work:
    """The program linearised around paths and smoothed, twice, and its states found once where histories are kept."""
    several = sizes.states > 1 and kept > 0
    around = (2 + several) * bins
    return {
        "tangents": around * sizes.widest * sizes.products.messages,
        "information": around * sizes.neurons * sizes.widest,
        "filter": several * bins * _histories(sizes, kept),
    }


def _histories(sizes: FitSizes, kept: int) -> int:
    """Products of the filter in one bin, where every history is extended by every state."""
    return kept * sizes.states * sizes.latents**3


def _states(sizes: FitSizes) -> Work:
    """An AR-HMM, and networks refitted to its states."""
    return {
        "regressions": _bins(sizes, sizes.train) * sizes.states * sizes.latents**2,
        "gradients": _STATES_STEPS * _bins(sizes, sizes.batch) * sizes.products.messages,
    }


def _posterior(sizes: FitSizes) -> Work:
    """Smoothing of test trials, draws of both splits, expectations under them, and bounds."""
    train, test = _bins(sizes, sizes.train), _bins(sizes, sizes.test)
    drawn = train * sizes.train_draws + test * (sizes.draws + _AT_ONCE)
    both = drawn + train * sizes.train_draws + _WEIGHTS * test * sizes.draws
    new = 2 * _LOOSENED * test if sizes.per_trial else 0.0
    found = {"products": both * sizes.products.messages, "expectations": both * sizes.neurons}
    return _added(found, _smoothed(sizes, new, _KEPT_OF_NEW), _smoothed(sizes, train))


def _added(*parts: Work) -> Work:
    return {
        kind: sum(part.get(kind, 0.0) for part in parts) for kind in {kind: None for part in parts for kind in part}
    }


def held_by(sizes: FitSizes) -> Work:
    """What is held at once, in millions of numbers."""
    every, batch = _bins(sizes, sizes.train + sizes.test), _bins(sizes, sizes.batch)
    return {
        "once": 1.0,
        "signals": every * sizes.neurons,
        "matrices": every * sizes.latents**2,
        "batch": batch * (sizes.neurons + sizes.products.units),
    }
