"""NAME_latents.mat: the fitted latents and scores under the published keys, for MATLAB and scipy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import scipy.io
from jaxtyping import Int

from mrsds_ppl.analysis.posterior import PosteriorSet
from mrsds_ppl.analysis.recovery.alignment import valid_bins
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.storage.atomic import written_aside

HISTORY_KEYS = ("elbos", "lrs", "temps", "log_pxs", "log_pys", "log_qxs")
EVALUATION_KEYS = (
    *(f"{split}_{score}" for split in ("train", "test", "cosmooth") for score in ("mses", "r2s")),
    *(f"{split}_gen1_{score}" for split in ("train", "test", "cosmooth") for score in ("mses", "r2s")),
    "cosmooth_bps",
    "restart_bounds",
)

# MATLAB reads no larger array from a version 5 file.
_LARGEST_ARRAY = 2**31 - 1


def write_latents(
    path: str | Path,
    *,
    train: PosteriorSet,
    test: PosteriorSet,
    train_trials: Trials,
    test_trials: Trials,
    dropout_ids: Int[np.ndarray, "hidden"],
    latent_region_sizes: Sequence[int],
    history: Mapping[str, np.ndarray],
    evaluations: Mapping[str, np.ndarray | Sequence[float] | float],
    emissions: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Writes the posterior of both splits, the training history and the scores to a version 5 .mat file.

    Real arrays are float32, padded to a common length with NaN; ``ys_*`` is NaN also where a value is missing. Axes:
    ``xs`` (trial, time, latent), ``xs_*_draws`` (draw, trial, time, latent), ``zs`` and ``zs_logprob`` (trial, time,
    state), ``msgs`` (trial, time, target, source+input, latent), ``norms``, their Euclidean norms over latents,
    (trial, time, target, source+input). Trial and neuron numbers count from 0.

    Args:
        path: where the file shall appear.
        train: posterior of the training trials.
        test: posterior of the test trials.
        train_trials: the training trials.
        test_trials: the test trials.
        dropout_ids: the neurons hidden from the encoder in the co-smoothing evaluation.
        latent_region_sizes: number of latents of each region.
        history: values over training, under any of ``HISTORY_KEYS``.
        evaluations: scores, one a checkpoint evaluated, under any of ``EVALUATION_KEYS``.
        emissions: parameters of the laws of the signals, a number for each neuron, by key.

    Raises:
        RunError: if an array is too large for the format, or the file cannot be written.
        ValueError: if ``history`` or ``evaluations`` has another key.
    """
    _check_keys("history", history, HISTORY_KEYS)
    _check_keys("evaluations", evaluations, EVALUATION_KEYS)
    contents: dict[str, np.ndarray] = {
        **split_arrays("train", train, train_trials),
        **split_arrays("test", test, test_trials),
        "region_sizes": np.asarray(train_trials.region_sizes, dtype=np.int64),
        "latent_region_sizes": np.asarray(latent_region_sizes, dtype=np.int64),
        "dropout_ids": np.asarray(dropout_ids, dtype=np.int64),
        # Text as MATLAB has it, a cell for each.
        "region_names": np.array(train_trials.region_names, object),
        "neuron_ids": np.array([str(name) for name in train_trials.neuron_ids], object),
        **_sessions(train_trials),
        "input_names": np.array(train_trials.input_names, object),
    }
    for key, values in (*history.items(), *evaluations.items()):
        contents[key] = np.atleast_1d(np.asarray(values, dtype=np.float64))
    contents |= {key: np.asarray(values, dtype=np.float32) for key, values in emissions.items()}
    with written_aside(path) as aside:
        scipy.io.savemat(aside, contents, appendmat=False, do_compression=True, oned_as="row")


def _sessions(trials: Trials) -> dict[str, np.ndarray]:
    """Names of joined sessions, and the neuron of each in each column; nothing for one recording."""
    if trials.own_neurons is None:
        return {}
    return {
        "session_names": np.array(trials.session_names, object),
        "own_neurons": trials.own_neurons.astype(object),
    }


def split_arrays(split: str, posterior: PosteriorSet, trials: Trials) -> dict[str, np.ndarray]:
    """The keys of one split."""
    valid = valid_bins(posterior.lengths, posterior.x_mean.shape[1])
    by_bin = {
        f"xs_{split}": posterior.x_mean,
        f"zs_{split}": posterior.z_prob,
        "zs_logprob" if split == "train" else f"zs_logprob_{split}": posterior.z_logprob,
        f"us_{split}": trials.u,
        f"ys_recon_{split}": posterior.y_mean,
        f"msgs_{split}": posterior.messages,
        f"norms_{split}": posterior.norms,
    }
    if trials.x is not None:
        by_bin[f"xs_{split}_true"] = trials.x
    if trials.z is not None:
        by_bin[f"zs_{split}_true"] = trials.z
    arrays = {key: _with_nan(key, values, valid) for key, values in by_bin.items()}
    draws_key = f"xs_{split}_draws"
    arrays[draws_key] = _with_nan(draws_key, posterior.x_draws, valid[None])
    arrays[f"ys_{split}"] = _with_nan(f"ys_{split}", trials.y, trials.observed)
    # Of each trial: the bound, the importance-weighted estimate of log p(y), in nats, and the tail of its weights.
    for name, values in (
        ("elbo", posterior.elbo),
        ("log_marginal", posterior.log_likelihood),
        ("pareto_k", posterior.pareto_k),
    ):
        arrays[f"{name}_{split}"] = np.asarray(values, dtype=np.float64)
    ids = np.asarray(posterior.trial_ids)
    # Of joined sessions they are text, ``session/id``.
    arrays[f"{split}_ids"] = ids.astype(object) if ids.dtype.kind == "U" else ids.astype(np.int64)
    arrays[f"{split}_lengths"] = np.asarray(posterior.lengths, dtype=np.int64)
    return arrays


def read_set(mat: Mapping[str, np.ndarray], split: str, trials: Trials, latent_sizes: Sequence[int]) -> PosteriorSet:
    """The posterior of one split as :func:`split_arrays` wrote it; what the file does not hold is None.

    Args:
        mat: the file's arrays; MATLAB's format drops a last axis of one.
        split: ``train`` or ``test``.
        trials: trials of the split.
        latent_sizes: latents of each region.

    Raises:
        RunError: the arrays are not of these trials and latents.
    """
    grid, latents = (trials.num_trials, trials.num_bins), sum(latent_sizes)
    targets, widest = len(latent_sizes), max(latent_sizes)
    try:
        norms = mat[f"norms_{split}"].reshape(*grid, targets, -1)
        sources = norms.shape[-1]
        found = PosteriorSet(
            trial_ids=trials.ids,
            lengths=trials.lengths,
            x_mean=mat[f"xs_{split}"].reshape(*grid, latents),
            x_draws=mat[f"xs_{split}_draws"].reshape(-1, *grid, latents),
            z_prob=mat[f"zs_{split}"].reshape(*grid, -1),
            z_prob_draws=None,
            z_logprob=mat["zs_logprob" if split == "train" else f"zs_logprob_{split}"].reshape(*grid, -1),
            y_mean=mat[f"ys_recon_{split}"].reshape(*grid, trials.num_neurons),
            y_next=None,
            messages=mat[f"msgs_{split}"].reshape(*grid, targets, sources, widest),
            norms=norms,
            log_likelihood=mat[f"log_marginal_{split}"].ravel(),
            elbo=mat[f"elbo_{split}"].ravel(),
            pareto_k=mat[f"pareto_k_{split}"].ravel(),
            y_draws=None,
            log_likelihood_draws=None,
        )
        ids = [str(np.ravel(i)[0]) for i in mat[f"{split}_ids"].ravel()]
        if ids != [str(i) for i in trials.ids]:
            raise ValueError(f"the {split} trials are others")
    except (KeyError, ValueError) as error:
        raise RunError(f"the .mat file of the run does not fit its configuration ({error}); fit again.") from error
    return found


def _with_nan(key: str, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """``values`` in float32, NaN where ``kept``, whose axes are the leading ones of ``values``, is false."""
    nbytes = values.size * np.dtype(np.float32).itemsize
    if nbytes > _LARGEST_ARRAY:
        raise RunError(
            f"{key} of shape {tuple(values.shape)} would take {nbytes / 1e9:.1f} GB, and a .mat file holds arrays of "
            "at most 2.1 GB. Write less: lower output.draws, or fit fewer trials or longer bins."
        )
    mask = kept.reshape(kept.shape + (1,) * (values.ndim - kept.ndim))
    return np.where(mask, values, np.float32(np.nan)).astype(np.float32, copy=False)


def _check_keys(name: str, given: Mapping[str, object], allowed: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ValueError(f"{name} has the keys {unknown}, which the file does not define; it defines {list(allowed)}.")
