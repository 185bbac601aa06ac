"""Three regions that turn, in a chain of two messages, the first of which is half as large in every other trial.

    x_t^r = 0.9 Rot(w_r) x_{t-1}^r + s_c M_r x_{t-1}^{r-1} + noise

with s_c = 1/2 for the first message in the second condition, and 1 otherwise. The second region moves less there, and
so the second message is smaller too.
"""

import numpy as np

from mrsds_ppl.data.trials import Trials

REGIONS, NEURONS, NOISE, SIGNAL_NOISE, STRENGTH = ["a", "b", "c"], 10, 0.2, 0.2, 0.5
TURNS = (0.3, 0.8, 1.4)


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def halved_message(seed: int, num_trials: int = 80, share: float = 0.5) -> Trials:
    """Trials labelled ``full`` and ``half`` in turn; ``share`` is what is left of the message from a to b."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((2, 3, 2, 3, 2))
    for region, turn in enumerate(TURNS):
        matrix[:, region, :, region] = 0.9 * rotation(turn)
    for target in (1, 2):
        matrix[:, target, :, target - 1] = STRENGTH * rotation(rng.uniform(0, 2 * np.pi))
    matrix[1, 1, :, 0] *= share
    step = matrix.reshape(2, 6, 6)
    loadings = rng.normal(size=(3, NEURONS, 2)) / np.sqrt(2)
    labels, signals = np.array(["full", "half"] * (num_trials // 2)), []
    for trial in range(num_trials):
        x = np.zeros((rng.integers(30, 51), 6))
        x[0] = rng.normal(scale=0.5, size=6)
        for t in range(1, len(x)):
            x[t] = step[trial % 2] @ x[t - 1] + rng.normal(scale=NOISE, size=6)
        drive = np.einsum("rnd,trd->trn", loadings, x.reshape(-1, 3, 2)).reshape(len(x), -1)
        signals.append(drive + rng.normal(scale=SIGNAL_NOISE, size=drive.shape))
    return Trials.from_arrays(
        signals, region_sizes=[NEURONS] * 3, region_names=REGIONS, bin_width=0.05, labels=labels.tolist()
    )
