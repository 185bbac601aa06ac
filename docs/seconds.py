"""How soon fits come within reach of where they end, read off their log files:

python docs/seconds.py results/toy-config results/double-well ...

The score is the bound in training, above what neurons that keep their mean would have (each with its own Gaussian or
Poisson law). Printed are the seconds from the first line of the log to the first record with 95% of the last record's
score, and to the end of the run. Records come every `training.log_steps` steps; the warm-up of the staged start has
them too, smoothing has none.
"""

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from mrsds_ppl.build import make_trials
from mrsds_ppl.config.loading import load_config
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials import Trials

_SHARE = 0.95
_RECORD = re.compile(r"^\S+ \S+ [\w -]+: step \d+ of \d+ .*?elbo (\S+)")


class Record(NamedTuple):
    """Seconds since the first line, and the bound in nats of an observed value."""

    seconds: float
    bound: float


def seconds_of(line: str, first: str) -> float:
    """Seconds between two lines of a log."""
    then, now = (datetime.fromisoformat(" ".join(text.split()[:2])) for text in (first, line))
    return (now - then).total_seconds()


def unmoved(trials: Trials, *, counts: bool) -> float:
    """Log likelihood of an observed value where every neuron keeps its mean (and variance)."""
    total = 0.0
    for neuron in range(trials.y.shape[2]):
        y = trials.y[:, :, neuron][trials.observed[:, :, neuron]]
        total += (stats.poisson.logpmf(y, y.mean()) if counts else stats.norm.logpdf(y, y.mean(), y.std())).sum()
    return total / float(np.sum(trials.observed))


for name in sys.argv[1:]:
    lines = Path(f"{name}-log.txt").read_text().splitlines()
    config = load_config(f"{name}-config.yaml")
    train = split_trials(make_trials(config), config.training.split.test_perc, config.training.seeds.data).train
    floor = unmoved(train, counts=config.model.emissions.dist == "poisson")
    found = [(line, match) for line in lines if (match := _RECORD.match(line))]
    records = [Record(seconds_of(line, lines[0]), float(match[1])) for line, match in found]
    enough = floor + _SHARE * (records[-1].bound - floor)
    soon = next(record for record in records if record.bound >= enough)
    print(
        f"{name}: {soon.seconds:.0f} s to {_SHARE:.0%} ({soon.bound:.4f}; {floor:.4f} unmoved, {records[-1].bound:.4f} "
        f"in the end), {seconds_of(lines[-1], lines[0]):.0f} s in all, first record after {records[0].seconds:.0f} s"
    )
