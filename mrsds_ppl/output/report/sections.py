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
)
from mrsds_ppl.output.report.averages import averages_section
from mrsds_ppl.output.report.checks import run_checks
from mrsds_ppl.output.report.conditions import conditions_section
from mrsds_ppl.output.report.edges import edges_section
from mrsds_ppl.output.report.findings import Findings
from mrsds_ppl.output.report.flow import flow_section
from mrsds_ppl.output.report.page import Figure, Section, Table, page
from mrsds_ppl.output.report.restarts import restarts_section
from mrsds_ppl.output.report.scores import scores_section

_SHOWN_STATES, _SHOWN_REGIONS, _SHOWN_NEURONS = 6, 12, 4


def report_page(findings: Findings) -> str:
    """The HTML page of a run, see :func:`mrsds_ppl.output.report.page.page`."""
    sections = [
        None if findings.restarts is None else restarts_section(findings.restarts),
        _edges(findings),
        _latents(findings),
        _states(findings),
        _averages(findings),
        _activity(findings),
        _messages(findings),
        _conditions(findings),
        flow_section(findings.fields, _shown_states(findings), findings.latent_regions),
        _prediction(findings),
        _training(findings),
    ]
    kept = [section for section in sections if section is not None]
    return page(
        findings.name,
        findings.subtitle,
        findings.facts,
        run_checks(findings.evidence),
        scores_section(findings.scores, findings.recovery),
        kept,
        findings.listings,
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
        "Test trials, one a row: colour is the likeliest state, paler where less certain. Below: mean over the trials "
        "that go on, as long as a fifth of them do.",
    )
    table = Table(["State", "share of bins", "median stay (s)"], rows)
    return Section("states", "Discrete states", text, [figure, table])


def _averages(f: Findings) -> Section | None:
    if f.averages is None:
        return None
    return averages_section(f.averages, _shown_states(f), _shown_latents(f), f.latent_names)


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
    # The neurons that the model explains best, each of another region, so that there is something to see.
    titles = list(e.activity)
    observed, fitted = e.activity[titles[0]], e.activity[titles[1]]
    ends = np.cumsum(f.region_sizes)
    seen = np.isfinite(observed).any(0)
    varies = np.where(seen, np.nan_to_num(observed).var(0), 0.0)
    explained = np.where(varies > 0, fitted.var(0) / np.where(varies > 0, varies, 1.0), 0.0)
    starts = ends - np.asarray(f.region_sizes)
    best = np.array([first + np.argmax(explained[first:end]) for first, end in zip(starts, ends, strict=True)])
    best = np.sort(best[np.argsort(-explained[best], kind="stable")[:_SHOWN_NEURONS]])
    lines = {title: e.activity[title] for title in titles[:3]}
    curves = plot_neurons(e.seconds, lines, best, f.neuron_names, unit=f.unit)
    text = [
        "Reconstructed is the expected activity given all data of the trial; one bin ahead is predicted from the "
        "latents of the bin before; generated is a new trial that the model makes up by itself, which should look like "
        "the same kind of data without matching this trial."
    ]
    caption = (
        f"Test trial {e.number}: all neurons, on one colour scale; means of neighbours where there are more of them "
        "than rows of the image. White is missing."
    )
    figures = [
        Figure(panels, "Images of neurons over time: observed, reconstructed, predicted, generated.", caption),
        Figure(
            curves,
            "Observed and predicted activity of single neurons.",
            f"The best described neuron of {'each region' if len(best) == len(ends) else f'{len(best)} regions'}.",
        ),
    ]
    return Section("activity", "Observed, reconstructed and generated activity", text, figures)


def _messages(f: Findings) -> Section:
    e = f.example
    targets, sources = f.latent_regions, [*f.latent_regions, *f.input_names]
    shown = np.arange(len(targets))
    if len(targets) > _SHOWN_REGIONS:
        shown = np.sort(np.argsort(-np.asarray(f.region_sizes), kind="stable")[:_SHOWN_REGIONS])
    receiving = [targets[region] for region in shown.tolist()]
    norms = plot_message_norms(e.seconds, e.norms[:, shown], receiving, sources, z_prob=e.z_prob)
    text = [
        "The change of a region's latents from one bin to the next is a sum of messages: its own, one from every other "
        "region, one from every input. A message's norm says how strongly it moves the receiving region. Latents have "
        "no unit of their own, so compare messages that one region receives, rather than messages to different "
        "regions. All of this is posterior means. They have errors that this page does not show, and a norm is never "
        "zero: which messages are there is said above."
    ]
    if len(shown) < len(targets):
        text.append(f"Shown over time are messages to the {len(shown)} of {len(targets)} regions with most neurons.")
    caption = f"Test trial {e.number}: posterior means of message norms, averaged over the state posterior. "
    caption += (
        "Each image has a colour scale of its own, from 0 to the number in its title. Grey: the region's own message. "
        "First row: the likeliest state."
        if norms[0].images
        else "A region's own message is in its own colour. Background: the likeliest state."
    )
    figures = [Figure(norms, "Norms of the messages each region receives over time.", caption)]
    if len(sources) > 1:
        states = _shown_states(f)
        graph = plot_communication(f.communication[states], targets, sources, titles=_titles(f, states))
        caption = (
            "Mean message norms in test trials, each bin weighted by the probability of the state, on one scale for "
            "all states: of colours, and of arrows where there are any. Grey: a region's own message."
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
    caption = "Grey: every step; dark: running mean. The first tenth may lie outside of the axes."
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
