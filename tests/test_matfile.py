from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from posterior_of import posterior_of, two_region_trials

from mrsds_ppl.errors import RunError
from mrsds_ppl.output.matfile import EVALUATION_KEYS, HISTORY_KEYS, write_latents
from mrsds_ppl.storage.atomic import write_text, written_aside


def arguments(**changes):
    trials = two_region_trials()
    train_trials, test_trials = trials.select(np.array([0, 1, 2, 5, 6])), trials.select(np.array([3, 4]))
    return {
        "train": posterior_of(train_trials, seed=1),
        "test": posterior_of(test_trials, seed=2),
        "train_trials": train_trials,
        "test_trials": test_trials,
        "dropout_ids": np.array([1, 4]),
        "latent_region_sizes": [2, 1],
        "history": {key: np.arange(5.0) + i for i, key in enumerate(HISTORY_KEYS)},
        "evaluations": {key: [0.1, 0.2 + i] for i, key in enumerate(EVALUATION_KEYS)},
    } | changes


def written(path: Path, **changes):
    given = arguments(**changes)
    write_latents(path, **given)
    contents = scipy.io.loadmat(path)
    return given, {key: value for key, value in contents.items() if not key.startswith("__")}


def test_the_keys_are_the_published_ones(tmp_path: Path):
    _, contents = written(tmp_path / "run_latents.mat")
    published = (
        "xs_train xs_test xs_train_draws xs_test_draws zs_train zs_test zs_logprob zs_logprob_test "
        "ys_train ys_test us_train us_test ys_recon_train ys_recon_test msgs_train msgs_test norms_train norms_test "
        "train_ids test_ids train_lengths test_lengths region_sizes latent_region_sizes dropout_ids "
        "elbos lrs temps log_pxs log_pys log_qxs "
        "train_mses train_r2s test_mses test_r2s cosmooth_mses cosmooth_r2s train_gen1_mses train_gen1_r2s "
        "test_gen1_mses test_gen1_r2s cosmooth_gen1_mses cosmooth_gen1_r2s cosmooth_bps "
        "xs_train_true xs_test_true zs_train_true zs_test_true"
    )
    ours = {f"{name}_{split}" for name in ("elbo", "log_marginal", "pareto_k") for split in ("train", "test")}
    assert set(contents) == set(published.split()) | ours | {
        "restart_bounds",
        "region_names",
        "neuron_ids",
        "input_names",
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_split_holds_its_own_posterior_and_nan_in_padded_bins(tmp_path: Path, split: str):
    given, contents = written(tmp_path / "run.mat")
    posterior, trials = given[split], given[f"{split}_trials"]
    padded = np.arange(12) >= np.asarray(trials.lengths)[:, None]
    assert padded.any()
    for key, values in {
        f"xs_{split}": posterior.x_mean,
        f"zs_{split}": posterior.z_prob,
        "zs_logprob" if split == "train" else "zs_logprob_test": posterior.z_logprob,
        f"us_{split}": trials.u,
        f"ys_recon_{split}": posterior.y_mean,
        f"msgs_{split}": posterior.messages,
        f"norms_{split}": posterior.norms,
        f"xs_{split}_true": trials.x,
        f"zs_{split}_true": trials.z,
    }.items():
        assert contents[key].dtype == np.float32, key
        np.testing.assert_array_equal(contents[key][~padded], values[~padded], err_msg=key)
        assert np.isnan(contents[key][padded]).all(), key
    draws = contents[f"xs_{split}_draws"]
    np.testing.assert_array_equal(draws[:, ~padded], posterior.x_draws[:, ~padded])
    assert np.isnan(draws[:, padded]).all()
    recorded = contents[f"ys_{split}"]
    np.testing.assert_array_equal(np.isnan(recorded), ~trials.observed)
    np.testing.assert_array_equal(recorded[trials.observed], trials.y[trials.observed])
    np.testing.assert_array_equal(contents[f"{split}_ids"].ravel(), trials.ids)
    np.testing.assert_array_equal(contents[f"{split}_lengths"].ravel(), trials.lengths)


def test_history_scores_and_sizes_are_rows(tmp_path: Path):
    given, contents = written(tmp_path / "run.mat", evaluations={"test_r2s": 0.5})
    np.testing.assert_array_equal(contents["elbos"], given["history"]["elbos"][None])
    np.testing.assert_array_equal(contents["test_r2s"], [[0.5]])
    np.testing.assert_array_equal(contents["region_sizes"], [[3, 2]])
    np.testing.assert_array_equal(contents["latent_region_sizes"], [[2, 1]])
    np.testing.assert_array_equal(contents["dropout_ids"], [[1, 4]])


def test_names_are_cells_of_text(tmp_path: Path):
    _, contents = written(tmp_path / "run.mat")
    found = {
        key: [cell.item() for cell in contents[key].ravel()] for key in ("region_names", "neuron_ids", "input_names")
    }
    assert found == {
        "region_names": ["V1", "V2"],
        "neuron_ids": ["11", "12", "15", "3", "4"],
        "input_names": ["cue 0"],
    }


def test_an_array_too_large_for_the_format_names_the_remedy(tmp_path: Path):
    train = arguments()["train"]
    many = 2**22
    huge = np.broadcast_to(train.x_draws[:1], (many, *train.x_draws.shape[1:]))  # takes no memory
    states = np.broadcast_to(train.z_prob_draws[:1], (many, *train.z_prob_draws.shape[1:]))
    weights = np.broadcast_to(train.log_likelihood_draws[:1], (many, *train.log_likelihood_draws.shape[1:]))
    crowd = replace(train, x_draws=huge, z_prob_draws=states, log_likelihood_draws=weights)
    with pytest.raises(RunError, match=r"xs_train_draws of shape .* would take 3\.0 GB.*output\.draws"):
        write_latents(tmp_path / "run.mat", **arguments(train=crowd))
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_the_file_does_not_define_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"evaluations has the keys \['test_r3s'\]"):
        written(tmp_path / "run.mat", evaluations={"test_r3s": [1.0]})


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "run.mat"
    write_text(path, "before")

    def fail():
        with written_aside(path) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/sub/run\.mat could not be written: Not a directory"):
        write_text(tmp_path / "file" / "sub" / "run.mat", "text")
