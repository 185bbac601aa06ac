from itertools import permutations

import numpy as np
import pytest

from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.errors import RunError


def latents(seed: int = 0):
    """Two regions of two latents; the estimate is an affine map of each region's, exact in the valid bins."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 30, 4))
    lengths = np.array([30, 12, 30, 25, 1])
    estimate = np.concatenate(
        [x[..., :2] @ rng.normal(size=(2, 2)) + 3.0, x[..., 2:] @ rng.normal(size=(2, 2)) - 1.0], axis=2
    )
    padded = np.arange(30) >= lengths[:, None]
    x[padded], estimate[padded] = np.nan, 1e6 * rng.normal(size=(padded.sum(), 4))
    return x, estimate, lengths


def test_an_affine_map_within_each_region_is_undone():
    x, estimate, lengths = latents()
    result = align_latents(x, estimate, lengths, [2, 2])
    np.testing.assert_allclose(result.r2, 1.0, atol=1e-10)
    np.testing.assert_allclose(result.aligned, x, atol=1e-8)  # NaN in the same places
    mapped = estimate[0, :, 2:] @ result.weights[1] + result.offsets[1]
    np.testing.assert_allclose(mapped, x[0, :, 2:], atol=1e-8)


def test_a_region_is_not_explained_by_the_latents_of_another():
    x, estimate, lengths = latents()
    swapped = estimate[..., [2, 3, 0, 1]]
    assert align_latents(x, swapped, lengths, [2, 2]).r2.max() < 0.3
    np.testing.assert_allclose(align_latents(x, swapped, lengths, [4], [4]).r2, 1.0, atol=1e-10)


def test_noise_lowers_r2_to_its_share_of_the_variance():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 500, 1))
    noise = rng.normal(size=x.shape)
    # The best affine map of x + s e explains 1 / (1 + s^2) of the variance of x.
    result = align_latents(x, x + 0.5 * noise, np.full(40, 500), [1])
    assert result.r2[0] == pytest.approx(1 / 1.25, abs=0.01)


def test_regions_may_have_more_estimated_latents_than_true_ones():
    x, estimate, lengths = latents()
    spare = np.random.default_rng(2).normal(size=(5, 30, 1))
    wide = np.concatenate([estimate[..., :2], spare, estimate[..., 2:]], axis=2)
    np.testing.assert_allclose(align_latents(x, wide, lengths, [3, 2], [2, 2]).r2, 1.0, atol=1e-10)


def test_a_latent_that_does_not_vary_has_no_r2():
    x, estimate, lengths = latents()
    x[..., 1] = 0.0
    result = align_latents(x, estimate, lengths, [2, 2])
    assert np.isnan(result.r2[1])
    assert np.isfinite(result.r2[[0, 2, 3]]).all()


@pytest.mark.parametrize(("sizes", "true_sizes"), [([2, 1], None), ([4], [2, 2]), ([2, 2], [2, 3])])
def test_sizes_that_do_not_add_up_are_an_error(sizes, true_sizes):
    x, estimate, lengths = latents()
    with pytest.raises(RunError, match="Latents cannot be aligned: 4 estimated latents"):
        align_latents(x, estimate, lengths, sizes, true_sizes)


def one_hot(z, num_states: int):
    return np.eye(num_states)[z] * 0.6 + 0.1


def test_renumbered_states_are_matched():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 3, size=(4, 50))
    new_number = np.array([2, 0, 1])
    result = match_states(z, one_hot(new_number[z], 3), np.full(4, 50))
    assert result.accuracy == 1.0
    np.testing.assert_array_equal(result.true_state_of[new_number], [0, 1, 2])
    np.testing.assert_array_equal(result.z_matched, z)


def test_accuracy_is_the_best_over_all_matchings():
    rng = np.random.default_rng(3)
    z, prob = rng.integers(0, 4, size=(6, 20)), rng.random((6, 20, 4))
    lengths = np.array([20, 20, 5, 1, 20, 13])
    valid = np.arange(20) < lengths[:, None]
    best = max(np.mean(np.array(order)[prob.argmax(-1)][valid] == z[valid]) for order in permutations(range(4)))
    result = match_states(z, prob, lengths)
    assert result.accuracy == pytest.approx(best)
    assert np.mean(result.z_matched[valid] == z[valid]) == pytest.approx(best)
    assert result.confusion.sum() == valid.sum()
    assert (result.z_matched[~valid] == -1).all()


def test_padded_and_unknown_bins_are_not_compared():
    z = np.array([[0, 0, 1, 1, -1, 0]])
    prob = one_hot(np.array([[0, 0, 1, 1, 1, 1]]), 2)
    assert match_states(z, prob, np.array([5])).accuracy == 1.0
    prob[0, 5] = np.nan
    assert match_states(z, prob, np.array([5])).accuracy == 1.0


def test_a_spare_state_counts_as_wrong():
    z = np.array([[0, 0, 0, 1, 1, 1]])
    result = match_states(z, one_hot(np.array([[0, 0, 2, 1, 1, 1]]), 3), np.array([6]))
    assert result.accuracy == pytest.approx(5 / 6)
    np.testing.assert_array_equal(result.true_state_of, [0, 1, -1])


def test_fewer_states_than_the_truth():
    z = np.array([[0, 0, 0, 1, 1, 2]])
    assert match_states(z, np.ones((1, 6, 1)), np.array([6])).accuracy == 0.5
