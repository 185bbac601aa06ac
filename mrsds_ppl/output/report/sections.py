"""The report of a run: from what was found, as plain arrays, to the figures and words of its page."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mrsds_ppl.output.plots import (
    plot_activity,
    plot_communication,
    plot_message_norms,
    plot_neuron_scores,
    plot_neurons,
    plot_states,
    plot_training,
    plot_trial,
    plot_vector_field,
    state_colour,
)
from mrsds_ppl.output.plots.style import TEXT, make_axes
from mrsds_ppl.output.report.checks import run_checks
from mrsds_ppl.output.report.conditions import conditions_section
from mrsds_ppl.output.report.edges import edges_section
from mrsds_ppl.output.report.findings import Findings
from mrsds_ppl.output.report.page import Figure, Section, Table, page

_SHOWN_STATES = 6
_FIXED = (
    "Nothing moves at a fixed point: latents near a stable one (filled) end there, near an unstable one (open) they "
    "leave."
)


def report_page(findings: Findings) -> str:
    """The HTML page of a run, see :func:`mrsds_ppl.output.report.page.page`."""
    sections = [
        _edges(findings),
        _latents(findings),
        _states(findings),
        _activity(findings),
        _messages(findings),
        _conditions(findings),
        _flow(findings),
        _prediction(findings),
        _training(findings),
    ]
    kept = [section for section in sections if section is not None]
    return page(
        findings.name,
        findings.subtitle,
        findings.facts,
        run_checks(findings.evidence),
        _scores(findings),
        kept,
        findings.listings,
    )


def _scores(f: Findings) -> Section:
    counts = any(score.bits is not None for score in f.scores)
    head = ["Prediction of", "this model, R²", "trial average, R²", "linear regression, R²"]
    rows = [
        [score.name, f"{score.r2:.3f}", f"{score.r2_average:.3f}", _number(score.r2_linear)]
        + ([_number(score.bits)] if counts else [])
        for score in f.scores
    ]
    text = [
        "R² is the share of each neuron's variance over time and trials that a prediction explains, averaged over "
        "neurons: 1 is perfect, 0 is no better than the neuron's mean. Noise sets a ceiling below 1 that differs from "
        "recording to recording, so compare along a row: a model of interest beats the trial average, which knows only "
        "the time since the start of a trial, and comes close to or beats linear regression on other neurons (hidden "
        "ones) or on the last bin (one bin ahead). One bin ahead starts from latents inferred from the whole trial, "
        "later bins included: it tests the dynamics and is no forecast, which gives it an advantage over regression."
    ]
    if f.recovery:
        text.append("The recording is a simulation, so the truth is known. " + " ".join(f.recovery))
    return Section(
        "scores", "How well it describes the recording", text, [Table(head + ["bits per spike"] * counts, rows)]
    )


def _latents(f: Findings) -> Section:
    shown = _shown_latents(f)
    e = f.example
    axes = plot_trial(
        e.seconds,
        e.x[:, shown],
        e.z_prob,
        [f"{f.latent_names[i].replace(' latent', chr(10) + 'latent')} (a.u.)" for i in shown],
        x_true=None if e.x_true is None else e.x_true[:, shown],
        z_true=e.z_true,
    )
    text = [
        "A latent is a number for each bin that sums up what the neurons of one region do together. Background: the "
        "likeliest discrete state."
    ]
    if e.x_true is not None:
        text.append("Latents are defined up to a linear map; here they are mapped to the scale of the true ones.")
    if len(shown) < len(f.latent_names):
        text.append(f"Shown are the {len(shown)} of {len(f.latent_names)} latents that vary most in their regions.")
    caption = f"Test trial {e.number}: posterior means of the latents, and below them the state posterior."
    alt = f"Inferred latents of {', '.join(f.region_names)} over time, with the probability of each state."
    return Section("latents", "Latents", text, [Figure(axes, alt, caption)])


def _states(f: Findings) -> Section | None:
    states = f.z_prob.shape[2]
    if states == 1:
        return None
    text = [
        "In each discrete state the regions follow rules of their own. The raster shows when which state rules; if "
        "switches line up across trials, they are tied to something that happens at that time."
    ]
    rows = [[f"state {k}", f"{f.occupancy[k]:.1%}", stay] for k, stay in enumerate(_dwell(f))]
    axes = plot_states(f.seconds, f.z_prob, f.lengths)
    figure = Figure(
        axes,
        "Raster of the likeliest state of every bin of every test trial, and mean state probabilities over time.",
        "Test trials, one a row: colour is the likeliest state, paler where less certain. Below: mean over trials.",
    )
    table = Table(["State", "share of bins", "median stay (s)"], rows)
    return Section("states", "Discrete states", text, [figure, table])


def _dwell(f: Findings) -> list[str]:
    """Median seconds of the visits of each state."""
    width = float(f.seconds[1] - f.seconds[0]) if len(f.seconds) > 1 else 1.0
    stays: list[list[int]] = [[] for _ in range(f.z_prob.shape[2])]
    for trial, length in zip(f.z_prob, f.lengths, strict=True):
        state = trial[:length].argmax(-1)
        edges = np.flatnonzero(np.diff(state, prepend=-1, append=-1))
        for first, last in pairwise(edges):
            stays[int(state[first])].append(int(last - first))
    return [f"{np.median(visits) * width:.3g}" if visits else "never" for visits in stays]


def _activity(f: Findings) -> Section:
    e = f.example
    panels = plot_activity(e.seconds, e.activity, f.region_sizes, f.region_names, unit=f.unit)
    # The neuron of each region that the model explains best, so that there is something to see.
    titles = list(e.activity)
    observed, fitted = e.activity[titles[0]], e.activity[titles[1]]
    ends = np.cumsum(f.region_sizes)
    spread = np.nanvar(fitted, axis=0) / np.maximum(np.nanvar(observed, axis=0), 1e-12)
    starts = ends - np.asarray(f.region_sizes)
    best = np.array([first + np.argmax(spread[first:end]) for first, end in zip(starts, ends, strict=True)])[:4]
    lines = {title: e.activity[title] for title in titles[:3]}
    curves = plot_neurons(e.seconds, lines, best, f.neuron_names, unit=f.unit)
    text = [
        "Reconstructed is the expected activity given all data of the trial; one bin ahead is predicted from the "
        "latents of the bin before; generated is a new trial that the model makes up by itself, which should look like "
        "the same kind of data without matching this trial."
    ]
    caption = f"Test trial {e.number}: all neurons, on one colour scale. White is missing."
    figures = [
        Figure(panels, "Images of neurons over time: observed, reconstructed, predicted, generated.", caption),
        Figure(
            curves, "Observed and predicted activity of single neurons.", "The best described neuron of each region."
        ),
    ]
    return Section("activity", "Observed, reconstructed and generated activity", text, figures)


def _messages(f: Findings) -> Section:
    e = f.example
    targets, sources = f.latent_regions, [*f.latent_regions, *f.input_names]
    norms = plot_message_norms(e.seconds, e.norms, targets, sources, z_prob=e.z_prob)
    text = [
        "The change of a region's latents from one bin to the next is a sum of messages: its own, one from every other "
        "region, one from every input. A message's norm says how strongly it moves the receiving region. Latents have "
        "no unit of their own, so compare messages that one region receives, rather than messages to different "
        "regions. All of this is posterior means. They have errors that this page does not show, and a norm is never "
        "zero: which messages are there is said above."
    ]
    figures = [
        Figure(
            norms,
            "Norms of the messages each region receives over time.",
            f"Test trial {e.number}: posterior means of message norms, averaged over the state posterior.",
        )
    ]
    if len(sources) > 1:
        states = _shown_states(f)
        graph = plot_communication(f.communication[states], targets, sources, titles=_titles(f, states))
        caption = (
            "Mean message norms in test trials, each bin weighted by the probability of the state. Arrows are as wide "
            "as messages are large, on one scale for all states. Grey: a region's own message."
        )
        figures.append(Figure(graph, "Graph and matrix of mean message norms between regions by state.", caption))
    return Section("messages", "Messages and communication", text, figures)


def _edges(f: Findings) -> Section | None:
    if f.edges is None:
        return None
    titles = _titles(f, range(len(f.occupancy)))
    return edges_section(f.edges, f.communication, titles, f.latent_regions, [*f.latent_regions, *f.input_names])


def _conditions(f: Findings) -> Section | None:
    sources = [*f.latent_regions, *f.input_names]
    if f.conditions is None or len(sources) == 1:
        return None
    return conditions_section(f.conditions, f.latent_regions, sources)


def _flow(f: Findings) -> Section | None:
    if not f.fields:
        return None
    states = _shown_states(f)
    figures = []
    for field in f.fields:
        columns = min(len(states), 2)
        rows = -(-len(states) // columns)
        flat = len(field.coordinates) == 1
        grid = make_axes(rows, columns, (2.9 if flat else 3.5) * rows, width=7.0 if columns > 1 else 4.4)
        axes = grid.ravel()
        for unused in axes[len(states) :]:
            unused.set_visible(False)
        for ax, k in zip(axes[: len(states)], states, strict=True):
            plot_vector_field(
                field.points,
                field.changes[k],
                field.coordinates,
                trajectories=field.trajectories[k],
                fixed_points=field.fixed_points[k],
                stable=field.stable[k],
                colour=state_colour(k),
                ax=ax,
            )
            ax.set_title(f"state {k}", loc="right", fontsize=TEXT)
        caption = (
            f"{field.region}: where the latents go in the next bin. "
            + (
                "Grey: where the latent was in 98% of the state's bins. "
                if flat
                else "Lines: inferred paths of test trials while in the state. "
            )
            + (_FIXED if any(len(points) for points in field.fixed_points) else "")
        )
        figures.append(Figure(axes, f"Flow of the latents of {field.region} in each state.", caption))
    text = [
        "The rules of each state, drawn: from any place, the model says where the latents move next. Other regions are "
        "held at their mean and inputs at zero, and the flow is to be believed where the latents have been."
    ]
    return Section("flow", "Flow in each state", text, figures)


def _prediction(f: Findings) -> Section | None:
    if not len(f.hidden_scores):
        return None
    ax = plot_neuron_scores(
        f.hidden_scores,
        f.hidden_region,
        f.region_names,
        baseline=f.hidden_baseline,
        baseline_name="trial average",
        unit=f.hidden_unit,
    )
    text = [
        "Co-smoothing: some neurons of the test trials are hidden from the model, which must tell their activity from "
        "the others. It is the hardest of the plain tests, as there is no way to copy."
    ]
    caption = "Each dot is a hidden neuron."
    return Section("cosmoothing", "Neurons it did not see", text, [Figure(ax, "Scores of hidden neurons.", caption)])


def _training(f: Findings) -> Section:
    axes = plot_training(f.curves, skipped=f.skipped)
    text = [
        "The bound (ELBO) is what training raises. It adds up three terms: how well the latents explain the activity "
        "(log p(y|x)), how well the dynamics explain the latents (log p(x)), and minus log q(x), which rewards an "
        "approximate posterior that is no narrower than it must be."
    ]
    caption = "Grey: every step; blue: running mean. The first tenth may lie outside of the axes."
    return Section("training", "Training", text, [Figure(axes, "Training curves.", caption)])


def _shown_latents(f: Findings) -> list[int]:
    """At most eight latents: in turn, the most varying of each region."""
    if len(f.latent_names) <= 8:
        return list(range(len(f.latent_names)))
    regions = [name.rsplit(" latent", 1)[0] for name in f.latent_names]
    spread = f.example.x.var(0)
    rank = {r: sorted((i for i, name in enumerate(regions) if name == r), key=lambda i: -spread[i]) for r in regions}
    turns = [place[turn] for turn in range(len(f.latent_names)) for place in rank.values() if turn < len(place)]
    return sorted(turns[:8])


def _shown_states(f: Findings) -> list[int]:
    """The states in most bins, at most six."""
    return sorted(np.argsort(-f.occupancy)[:_SHOWN_STATES].tolist())


def _titles(f: Findings, states: Sequence[int]) -> list[str]:
    return [f"state {k} ({f.occupancy[k]:.0%} of bins)" for k in states]


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"
