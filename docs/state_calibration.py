"""How sure fits of simulations are of their states, and how often they are right, in all their trials:

python docs/state_calibration.py results/oscillators ...
"""

import sys

import numpy as np

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.recovery.state_calibration import state_calibration

for name in sys.argv[1:]:
    fit = mrsds.load(name)
    found = state_calibration(fit.trials.z, np.nan_to_num(fit.states.values), fit.trials.lengths)
    print(f"{name}: calibration error {found.error:.4f}, said {found.confidence:.4f}, right {found.accuracy:.4f}")
