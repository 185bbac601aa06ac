"""Figures: every axis labelled, every text large enough for print and inside of the page, and what is drawn is true."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from mrsds_ppl.output import plots
from mrsds_ppl.output.plots import state_colour
from mrsds_ppl.output.plots.style import apart

mpl.use("agg")
RNG = np.random.default_rng(0)
BINS, STATES = 30, 3
SECONDS = np.arange(BINS) * 0.02
REGIONS = ["V1", "LGN", "motor cortex"]
SOURCES = [*REGIONS, "input 1"]
Z = RNG.dirichlet(np.full(STATES, 0.3), (9, BINS))
LENGTHS = np.array([30, 30, 12, 30, 25, 30, 30, 18, 30])
NORMS = RNG.gamma(2.0, 1.0, (BINS, 3, 4))
SIGNAL = RNG.normal(size=(BINS, 8))
LINE = np.linspace(-1.5, 1.5, 61)[:, None]
PLANE = np.stack(np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-1, 1, 9)), -1).reshape(-1, 2)
CURVES = {name: np.cumsum(RNG.normal(1.0, 1.0, 200)) for name in ("bound (ELBO)", "log p(y|x)", "log p(x)", "log q(x)")}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def trial(**more):
    names = ["V1\nlatent 1 (a.u.)", "V1\nlatent 2 (a.u.)"]
    return plots.plot_trial(SECONDS, RNG.normal(size=(BINS, 2)), Z[0], names, **more)


def activity(**more):
    panels = {"observed": np.where(SIGNAL > 2, np.nan, SIGNAL), "reconstructed": SIGNAL * 0.5, "generated": SIGNAL}
    return plots.plot_activity(SECONDS, panels, [4, 1, 3], REGIONS, **more)


def neurons(**more):
    panels = {"observed": SIGNAL, "reconstructed": SIGNAL * 0.5}
    names = [f"V1:{i}" for i in range(8)]
    return plots.plot_neurons(SECONDS, panels, np.array([1, 5]), names, unit="spikes per bin", **more)


def curve(**more):
    places = {"fixed_points": np.array([[-1.0], [0.0], [1.0]]), "stable": np.array([True, False, True])}
    paths = [RNG.normal(0, 0.5, (40, 1))]
    return plots.plot_vector_field(LINE, LINE - LINE**3, ["accumulator (a.u.)"], trajectories=paths, **places, **more)


def field(**more):
    change = np.column_stack([PLANE[:, 0] - PLANE[:, 0] ** 3, -PLANE[:, 1]])
    names = ["V1 latent 1 (a.u.)", "V1 latent 2 (a.u.)"]
    found = np.array([[-1.0, 0.0], [1.0, 0.0]])
    return plots.plot_vector_field(PLANE, change, names, trajectories=[PLANE[:5]], fixed_points=found, **more)


def norms(**more):
    return plots.plot_message_norms(SECONDS, NORMS, REGIONS, SOURCES, z_prob=Z[0], **more)


def communication(**more):
    return plots.plot_communication(RNG.gamma(1.0, 1.0, (STATES, 3, 4)), REGIONS, SOURCES, **more)


def averages(**more):
    found = [plots.average_over_trials(Z[chosen]) for chosen in (slice(0, 5), slice(5, 9))]
    mean, error = (np.stack([one[part] for one in found]).transpose(2, 0, 1) for part in (0, 1))
    names = [f"state {k}" for k in range(STATES)]
    return plots.plot_averages(SECONDS, mean, error, names, ["go (5 trials)", "stop (4 trials)"], **more)


def scores(**more):
    values = RNG.normal(0.3, 0.2, 12)
    return plots.plot_neuron_scores(values, np.repeat([0, 1, 2], 4), REGIONS, baseline=values - 0.2, **more)


FIGURES = {
    "trial": (trial, 3),
    "states": (lambda **more: plots.plot_states(SECONDS, Z, LENGTHS, **more), 2),
    "activity": (activity, 3),
    "neurons": (neurons, 2),
    "norms": (norms, 3),
    "communication": (communication, (STATES, 2)),
    "averages": (averages, STATES),
    "training": (lambda **more: plots.plot_training(CURVES, **more), 4),
    "curve": (curve, None),
    "field": (field, None),
    "scores": (scores, None),
}


def drawn_text(axes):
    """Texts of a figure that can be seen, once it is drawn, and where each of them is."""
    figure = np.ravel(axes)[0].figure
    assert figure.get_size_inches()[0] <= 7.0
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    # Ticks beyond an axis' limits are text objects too, but not drawn, nor are those of axes that are not shown.
    hidden = [label for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in not_drawn(axis)]
    hidden += [text for ax in figure.axes if not ax.get_visible() for text in ax.findobj(Text)]
    return [(text, text.get_window_extent()) for text in texts if text not in hidden]


def expect_legible_and_inside(axes):
    page, drawn = np.ravel(axes)[0].figure.bbox, drawn_text(axes)
    assert len(drawn) > 5
    for text, box in drawn:
        assert text.get_fontsize() >= 8, text
        within = (page.x0 - 1 <= box.x0, box.x1 <= page.x1 + 1, page.y0 - 1 <= box.y0, box.y1 <= page.y1 + 1)
        assert all(within), f"{text.get_text()!r} is cut off"
    return drawn


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_legible_in_print_and_inside_the_page(name):
    expect_legible_and_inside(FIGURES[name][0]())


AREAS = ["CA1", "DG", "ILA", "LD", "LP", "MOs", "PL", "PO", "SUB", "TT", "VISa", "VISp"]
NEURONS = [55, 32, 127, 39, 115, 105, 133, 248, 34, 71, 62, 44]
MANY = [*AREAS, "contrast left", "contrast right"]
OF_MANY_REGIONS = {
    "activity": lambda: plots.plot_activity(
        SECONDS, {name: RNG.poisson(0.1, (BINS, sum(NEURONS))).astype(float) for name in ("a", "b")}, NEURONS, AREAS
    ),
    "norms": lambda: plots.plot_message_norms(SECONDS, RNG.gamma(2.0, 1.0, (BINS, 12, 14)), AREAS, MANY, z_prob=Z[0]),
    "communication": lambda: plots.plot_communication(RNG.gamma(1.0, 1.0, (3, 12, 14)), AREAS, MANY),
    "scores": lambda: plots.plot_neuron_scores(RNG.normal(size=120), np.repeat(np.arange(12), 10), AREAS),
}


@pytest.mark.parametrize("name", OF_MANY_REGIONS)
def test_no_text_overprints_another_with_twelve_regions(name):
    drawn = expect_legible_and_inside(OF_MANY_REGIONS[name]())
    shown = [text.get_text() for text, _ in drawn]
    assert all(any(area in text for text in shown) for area in AREAS)
    for number, (text, box) in enumerate(drawn):
        for other, second in drawn[:number]:
            # Boxes have room above and below the letters.
            wide, high = (min(getattr(box, end), getattr(second, end)) for end in ("x1", "y1"))
            wide, high = wide - max(box.x0, second.x0), high - max(box.y0, second.y0)
            assert wide <= 1 or high <= 2, f"{text.get_text()!r} and {other.get_text()!r} overprint"


def test_names_stand_apart_in_order_and_as_near_as_they_can():
    places = np.array([1.0, 1.2, 5.0, 9.9])
    found = apart(places, 1.0, 0.5, 9.5)
    np.testing.assert_allclose(found, [0.6, 1.6, 5.0, 9.5])


def test_no_colour_means_both_a_region_and_a_state():
    def seen(colours):
        """CIE L*a*b* of colours, in which distances are those that an eye sees."""
        rgb = np.array([to_rgb(colour) for colour in colours])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
        x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089]).T  # its linear part concerns black alone
        return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)

    states, regions = seen(plots.STATE_COLOURS), seen(plots.REGION_COLOURS)
    assert np.linalg.norm(states[:, None] - regions, axis=-1).min() > 25
    axes = norms()
    senders = {to_rgb(line.get_color()) for ax in axes for line in ax.lines}
    assert len(senders) == len(SOURCES)
    assert not senders & {to_rgb(colour) for colour in plots.STATE_COLOURS}


def test_one_legend_serves_all_regions():
    figure = norms()[0].figure
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"from {name}" for name in SOURCES]
    assert all(ax.get_legend() is None for ax in figure.axes)


@pytest.mark.parametrize("trials", [3, 9, 12])
def test_trials_are_counted_in_whole_numbers(trials):
    ax = plots.plot_states(SECONDS, np.resize(Z, (trials, BINS, STATES)), np.full(trials, BINS))[0]
    ticks = ax.get_yticks()
    assert len(ticks) > 1
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_average_is_over_the_trials_that_have_a_bin_and_stops_where_few_do():
    values = RNG.normal(size=(10, 4, 2))
    values[3:, 2] = values[1:, 3] = np.nan
    found = plots.average_over_trials(values)
    np.testing.assert_array_equal(found.num_trials, [10, 10, 3, 1])
    np.testing.assert_allclose(found.mean[2], values[:3, 2].mean(0))
    np.testing.assert_allclose(found.error[1], values[:, 1].std(0, ddof=1) / np.sqrt(10))
    assert np.isnan(found.mean[3]).all()
    assert np.isnan(plots.average_over_trials(values[:1]).error).all()


def not_drawn(axis):
    on = axis.axes.axison
    low, high = sorted(axis.get_view_interval())
    slack = 1e-6 * (high - low)
    ticks = axis.get_major_ticks()
    return [
        label
        for tick in ticks
        if not (on and low - slack <= tick.get_loc() <= high + slack)
        for label in (tick.label1, tick.label2)
    ]


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labelled_with_units(name):
    figure = np.ravel(FIGURES[name][0]())[0].figure
    shown = [ax for ax in figure.axes if ax.axison and ax.get_visible()]
    for ax in shown:
        assert ax.get_ylabel(), "no label on a vertical axis"
        # An axis without tick labels of its own shares those of the axes below it.
        if any(label.get_visible() for label in ax.get_xticklabels()) and ax.get_label() != "<colorbar>":
            assert ax.get_xlabel(), "no label on a horizontal axis"
    labels = {ax.get_xlabel() for ax in shown} | {ax.get_ylabel() for ax in shown}
    assert any(unit in label for label in labels for unit in ("(s)", "a.u.", "nats", "R²")), labels


@pytest.mark.parametrize("name", FIGURES)
def test_functions_draw_into_the_axes_that_they_are_given_and_return_them(name):
    draw, shape = FIGURES[name]
    if shape is None:
        ax = plt.subplots()[1]
        assert draw(ax=ax) is ax
        assert ax.has_data()
        return
    rows, columns = shape if isinstance(shape, tuple) else (shape, 1)
    axes = plt.subplots(rows, columns)[1]
    returned = draw(axes=axes)
    assert returned is axes
    assert len(plt.get_fignums()) == 1


def test_raster_has_the_colour_of_the_likeliest_state_and_is_white_after_a_trial():
    z = np.zeros((2, 4, 2))
    z[0, :2, 0] = z[0, 2:, 1] = z[1, :, 1] = 1.0
    axes = plots.plot_states(np.arange(4.0), z, np.array([4, 2]))
    image = axes[0].images[0].get_array()
    np.testing.assert_allclose(image[0, 0], to_rgb(state_colour(0)), atol=0.01)
    np.testing.assert_allclose(image[0, 3], to_rgb(state_colour(1)), atol=0.01)
    np.testing.assert_allclose(image[1, 2:], 1.0)
    # After the second trial the mean over trials is that of the first alone.
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), [0.5, 0.5, 1.0, 1.0])


def test_uncertain_bins_are_paler():
    z = np.array([[[1.0, 0.0], [0.6, 0.4]]])
    image = plots.plot_states(np.arange(2.0), z, np.array([2]))[0].images[0].get_array()
    assert (np.asarray(image[0, 1]) > np.asarray(image[0, 0])).all()


def test_arrows_are_as_wide_as_messages_and_skip_absent_ones_and_a_regions_own():
    matrix = np.array([[[9.0, 1.0, 0.0], [2.0, 9.0, 0.0], [0.0, 4.0, 9.0]]])
    axes = plots.plot_communication(matrix, ["A", "B", "C"], ["A", "B", "C"])
    arrows = [patch for patch in axes[0, 0].patches if isinstance(patch, FancyArrowPatch)]
    widths = sorted(arrow.get_linewidth() for arrow in arrows)
    assert len(widths) == 3
    np.testing.assert_allclose(np.diff(widths) / (widths[1] - widths[0]), [1.0, 2.0])
    shown = [text.get_text() for text in axes[0, 1].texts]
    assert shown[:3] == ["9.00", "1.00", "0.00"]


def test_states_share_one_scale_of_messages():
    matrices = np.zeros((2, 2, 2))
    matrices[0, 0, 1], matrices[1, 0, 1] = 1.0, 0.5
    axes = plots.plot_communication(matrices, ["A", "B"], ["A", "B"])
    assert [axes[k, 1].images[0].get_clim() for k in range(2)] == [(0.0, 1.0), (0.0, 1.0)]
    wide, thin = (axes[k, 0].patches[0].get_linewidth() for k in range(2))
    assert wide > thin


def test_no_messages_at_all_can_be_drawn():
    axes = plots.plot_communication(np.zeros((1, 2, 2)), ["A", "B"], ["A", "B"])
    assert not axes[0, 0].patches


def test_fixed_points_are_told_by_their_stability():
    ax = curve()
    marks = {line.get_label(): line for line in ax.lines if "fixed point" in str(line.get_label())}
    assert marks["stable fixed point"].get_xdata().tolist() == [-1.0, 1.0]
    assert marks["unstable fixed point"].get_xdata().tolist() == [0.0]
    assert marks["stable fixed point"].get_markerfacecolor() != marks["unstable fixed point"].get_markerfacecolor()


def test_arrows_of_a_field_point_where_the_latents_go():
    ax = field()
    arrows = ax.collections[0]
    np.testing.assert_allclose(np.hypot(arrows.U, arrows.V)[np.abs(PLANE[:, 1]) > 0.1], 1.0)
    right = (PLANE[:, 0] > 1.01) & (np.abs(PLANE[:, 1]) < 0.01)
    assert (arrows.U[right] < 0).all()


def test_a_field_of_three_latents_is_refused():
    with pytest.raises(ValueError, match="found 3 latents"):
        plots.plot_vector_field(np.zeros((4, 3)), np.zeros((4, 3)), ["a", "b", "c"])


def test_training_shows_its_late_part_and_marks_skipped_steps():
    values = np.concatenate([[-1e6], np.linspace(-2.0, -1.0, 199)])
    skipped = np.zeros(200, bool)
    skipped[[50, 120]] = True
    ax = plots.plot_training({"bound": values}, skipped=skipped)[0]
    low, high = ax.get_ylim()
    assert -3 < low < high < 0
    marked = [line for line in ax.lines if line.get_marker() == "|"]
    assert marked[0].get_xdata().tolist() == [51, 121]


def test_neurons_are_grouped_by_region_and_ranked():
    values = np.array([0.1, 0.5, 0.3, np.nan, 0.9])
    ax = plots.plot_neuron_scores(values, np.array([0, 0, 1, 1, 1]), ["V1", "V2"])
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_ydata().tolist() for line in dots] == [[0.5, 0.1], [0.9, 0.3]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["V1 (2)", "V2 (2)"]
