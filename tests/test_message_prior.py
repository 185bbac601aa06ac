"""The prior on messages: its terms by hand, and its widths at the maximum of the evidence of a regression."""

import numpy as np

from mrsds_ppl.start.ascent.message_prior import Edge, edge, first_widths, moved_widths, precision


def test_the_terms_are_the_squares_of_messages_and_of_their_differences() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    variance, w = root @ root.T, rng.normal(size=(2, 2, 3))  # state, latent, feature
    some = edge(np.arange(12).reshape(2, 2, 3), variance)
    assert [len(some.terms), len(some.weights)] == [3, 12]
    square = [sum(v @ variance @ v for v in rows) for rows in (w[0], w[1], w[1] - w[0])]
    np.testing.assert_allclose([w.reshape(-1) @ term @ w.reshape(-1) for term in some.terms], square, rtol=1e-5)
    widths = np.array([2.0, 0.5, 3.0])
    expected = widths @ np.array(square)
    np.testing.assert_allclose(w.reshape(-1) @ precision(some, widths) @ w.reshape(-1), expected, rtol=1e-5)


def _log_evidence(design: np.ndarray, y: np.ndarray, prior: np.ndarray) -> float:
    covariance = np.eye(len(y)) + design @ np.linalg.solve(prior, design.T)
    return float(-0.5 * (np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y)))


def _settled(design: np.ndarray, y: np.ndarray, some: Edge) -> np.ndarray:
    (widths,) = first_widths([some])
    for _ in range(2000):
        covariance = np.linalg.inv(design.T @ design + precision(some, widths))
        widths = moved_widths(some, widths, covariance, covariance @ design.T @ y)
    return widths


def test_widths_settle_where_the_evidence_is_largest() -> None:
    """Two states: what is told is alike but not the same, so that every term has a width of its own."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=8) * 0.7
    truth = np.concatenate([w, w + 0.3 * rng.normal(size=8)])
    design = rng.normal(size=(400, 16))
    y = design @ truth + rng.normal(size=400)
    some = edge(np.arange(16).reshape(2, 2, 4), np.eye(4))
    widths = _settled(design, y, some)
    best = _log_evidence(design, y, precision(some, widths))
    inside = [term for term, width in enumerate(widths) if 1e-5 < width < 1e4]
    assert inside
    for term in inside:
        for factor in (0.8, 1.25):
            moved = widths.copy()
            moved[term] *= factor
            assert _log_evidence(design, y, precision(some, moved)) < best + 1e-7


def test_a_message_that_nothing_asks_for_vanishes_and_a_shared_one_is_tied() -> None:
    rng = np.random.default_rng(4)
    w = rng.normal(size=8)
    design, some = rng.normal(size=(300, 16)), edge(np.arange(16).reshape(2, 2, 4), np.eye(4))

    def fitted(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = design @ truth + rng.normal(size=300)
        widths = _settled(design, y, some)
        return np.linalg.solve(design.T @ design + precision(some, widths), design.T @ y), widths

    alone, widths = fitted(np.concatenate([w, np.zeros(8)]))
    assert np.linalg.norm(alone[8:]) < 0.15 * np.linalg.norm(alone[:8])
    assert widths[1] > 20 * widths[0]
    shared, _ = fitted(np.concatenate([w, w]))
    assert np.linalg.norm(shared[8:] - shared[:8]) < 0.1 * np.linalg.norm(shared)
