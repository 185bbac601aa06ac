"""A tiny recording and a tiny fit of it, of one size wherever a test needs just any run: its programs compile once."""

from pathlib import Path

import numpy as np
import yaml

from mrsds_ppl import cli
from mrsds_ppl.data.simulate import simulate_lotka_volterra
from mrsds_ppl.data.trials import Trials

MODEL = {"xtransition": {"dynamics": {"layers": [4], "activations": ["relu"]}}}
TRAINING = {"num_steps": 12, "log_steps": 4, "save_steps": 4, "batch_size": 5, "switch_init_steps": 0}
CONFIG = {
    "data": {"data_source": "mydata"},
    "model": {"num_states": 2, "latent_dims": 1, **MODEL},
    "inference": {"embedding": {"layers": [3], "activations": [None]}, "convolution_params": {"channels": 4}},
    "training": {**TRAINING, "test_perc": 0.25},
    "output": {"draws": 8},
}


def simulated(seed: int = 0, trials: int = 12) -> Trials:
    """Two regions of four neurons and one latent, trials of 20 bins."""
    return simulate_lotka_volterra(
        seed, num_trials=trials, num_bins=20, neurons_per_region=4, steps_per_bin=50, step=0.01
    )


def fitted(folder: Path) -> Path:
    """The run of ``tiny.yaml`` on ``data.npz``, both in the folder, by the command: its files are ``out/tiny*``."""
    signals, names = simulated().y, np.array(["V1", "motor <cortex>"])
    np.savez(folder / "data.npz", ys=signals, region_sizes=[4, 4], region_names=names, bin_width=0.5)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    command = ["fit", str(folder / "tiny.yaml"), "--data-path", str(folder / "data.npz")]
    assert cli.main([*command, "--result-path", str(folder / "out")]) == 0
    return folder / "out" / "tiny"
