"""Draws the README's picture from the files of the toy run:  python docs/toy_figure.py results/toy-config"""

import sys

import matplotlib
import numpy as np
import scipy.io
import xarray as xr

from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.output.plots import plot_trial

matplotlib.use("agg")


def main(run: str, out: str, trial: int = 2) -> None:
    """Aligns latents and states of the test trials with the true ones and draws one trial."""
    posterior = xr.open_datatree(f"{run}_posterior.nc", engine="h5netcdf")["posterior"]
    mat = scipy.io.loadmat(f"{run}_latents.mat")
    lengths = mat["test_lengths"].ravel()
    found = align_latents(mat["xs_test_true"], mat["xs_test"], lengths, [1, 1])
    states = match_states(mat["zs_test_true"].astype(int), mat["zs_test"], lengths)
    draws = posterior["x"].stack(sample=("chain", "draw")).transpose("sample", "trial", "time", "latent").values
    draws = np.stack([draws[:, trial, :, r] * found.weights[r].item() + found.offsets[r].item() for r in range(2)], -1)
    order = np.argsort(states.true_state_of)
    axes = plot_trial(
        posterior["time"].values,
        draws,
        mat["zs_test"][trial][:, order],
        ["prey region\nlatent (a.u.)", "predator region\nlatent (a.u.)"],
        x_true=mat["xs_test_true"][trial],
        z_true=mat["zs_test_true"][trial].astype(int),
    )
    axes[0].figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "docs/toy-fit.png")
