"""The Pareto shape of importance weights, by whichever ArviZ is installed, on weights whose tail is known."""

import numpy as np
import pytest

from mrsds_ppl.analysis.posterior import pareto_k


def test_a_pareto_tail_is_found_with_its_shape():
    # exp(k E) with E ~ Exp(1) has the tail w^(-1/k).
    draws = np.random.default_rng(0).exponential(size=(20_000, 2))
    assert pareto_k(draws * np.array([0.5, 1.2])) == pytest.approx([0.5, 1.2], abs=0.12)


def test_weights_with_a_bounded_tail_have_a_small_shape_and_few_draws_an_infinite_one():
    draws = np.random.default_rng(1).uniform(size=(2_000, 1))
    assert pareto_k(draws)[0] < 0
    assert np.isinf(pareto_k(draws[:12])[0])
