"""One self-contained HTML page: its style, its parts, and figures embedded as images. Nothing is fetched."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mrsds_ppl.output.report.checks import Check

if TYPE_CHECKING:
    import matplotlib.axes

_DPI = 150
_SIGNS = {"good": ("✓", "good"), "look": ("!", "look"), "bad": ("✗", "trouble")}

STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #57616b; --line: #d8dde2; --back: #ffffff; --tint: #f4f6f8; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 60rem; padding: 1.2rem 1rem 4rem; color: var(--ink); background: var(--back);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; padding-top: .6rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: #0061a8; }
nav { font-size: .95rem; margin: .8rem 0; }
nav a { display: inline-block; margin-right: 1rem; padding: .2rem 0; }
.soft, figcaption { color: var(--soft); font-size: .92rem; }
.scroll { overflow-x: auto; overflow-y: auto; max-height: 40rem; -webkit-overflow-scrolling: touch; }
.scroll thead th { position: sticky; top: 0; background: var(--back); }
table { border-collapse: collapse; margin: .8rem 0; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
td.number, th.number { text-align: right; white-space: nowrap; }
table.facts { width: 100%; }
table.facts th { font-weight: 600; width: 11rem; }
figure { margin: 1rem 0 1.6rem; }
figure label { display: block; overflow-x: auto; cursor: zoom-in; }
figure input { position: absolute; opacity: 0; width: 1px; height: 1px; }
figure img { display: block; max-width: 100%; height: auto; }
figure input:focus-visible + img { outline: 3px solid #0061a8; }
figure input:checked + img { max-width: none; }
figcaption { max-width: 46rem; margin-top: .4rem; }
.check { display: grid; grid-template-columns: 2.2rem 1fr; gap: .2rem .7rem; padding: .8rem 0;
  border-bottom: 1px solid var(--line); }
.check p { margin: .15rem 0; }
.sign { width: 2rem; height: 2rem; border-radius: 50%; color: #fff; font-weight: 700; text-align: center;
  line-height: 2rem; }
.good .sign { background: #00735a; } .look .sign { background: #8a5a00; } .bad .sign { background: #b03a00; }
.check b small { font-weight: 400; color: var(--soft); }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; font-size: .82rem; line-height: 1.4; }
summary { cursor: pointer; padding: .4rem 0; }
@media (max-width: 40rem) {
  body { padding-top: .8rem; }
  table.facts, table.facts tbody, table.facts tr, table.facts th, table.facts td { display: block; width: 100%; }
  table.facts th { border-bottom: 0; padding-bottom: 0; }
  th.number { white-space: normal; }
  th, td { padding-right: .5rem; }
  figure img { max-width: none; width: 40rem; }
  figure input:checked + img { width: auto; }
  figcaption::before { content: "Swipe sideways to see all of it, tap for full size. "; }
}
@media print {
  nav, details { display: none; }
  .scroll { max-height: none; }
  figure, .check, tr { break-inside: avoid; }
}
"""


class Figure(NamedTuple):
    """A drawn figure: its axes (any of them), what it shows in a sentence for those who cannot see it, its caption."""

    axes: "np.ndarray | matplotlib.axes.Axes"
    alt: str
    caption: str


class Table(NamedTuple):
    """Head and rows; all columns but the first are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A part of the page: anchor and title, paragraphs, then figures and tables in order."""

    anchor: str
    title: str
    text: Sequence[str]
    parts: Sequence[Figure | Table] = ()


def page(
    title: str,
    subtitle: str,
    facts: Sequence[tuple[str, str]],
    checks: Sequence[Check],
    scores: Section,
    sections: Sequence[Section],
    listings: Sequence[tuple[str, str]] = (),
    what: str = "fit",
) -> str:
    """The page as HTML.

    Args:
        title, subtitle: its head.
        facts: what was fitted, to what: names and values.
        checks: whether to trust it.
        scores: how well it describes the recording.
        sections: the science.
        listings: files to look up, by title, folded up at the end.
        what: the page is about, in a word.
    """
    trust = Section("trust", "Whether to trust it", [_verdict(checks, what)])
    order = [scores, trust, *sections]
    links = [("fit", "What was fitted"), *((section.anchor, section.title) for section in order)]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(subtitle)}</p>',
        "<nav>" + " ".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in links) + "</nav>",
        '<section id="fit"><h2>What was fitted, and to what</h2>' + _facts(facts) + "</section>",
        _section(scores),
        _section(trust, "".join(_check(check) for check in checks)),
        *(_section(section) for section in sections),
    ]
    if listings:
        body.append('<section id="files"><h2>To look up</h2>')
        body += [f"<details><summary>{escape(n)}</summary><pre>{escape(t)}</pre></details>" for n, t in listings]
        body.append("</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def digits_of(width: float) -> int:
    """Decimals that show two digits of an error or of the width of an interval, which then never reads zero."""
    return max(2, 1 - int(np.floor(np.log10(max(width, 1e-12)))))


def _verdict(checks: Sequence[Check], what: str) -> str:
    bad = [check.title.lower() for check in checks if check.status == "bad"]
    look = [check.title.lower() for check in checks if check.status == "look"]
    if bad:
        return f"Do not rely on this {what} before this is mended: {', '.join(bad)}."
    if look:
        return f"Nothing speaks against the {what} as a whole, but look at: {', '.join(look)}."
    return "Every check is in order."


def _section(section: Section, more: str = "") -> str:
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in section.text)
    parts = "".join(_table(part) if isinstance(part, Table) else _figure(part) for part in section.parts)
    return f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{text}{more}{parts}</section>'


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(n)}</th><td>{escape(value)}</td></tr>' for n, value in facts)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _table(table: Table) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        scope = "col" if tag == "th" else "row"
        first = f'<th scope="{scope}">{escape(row[0])}</th>'
        return first + "".join(f'<{tag} class="number">{escape(cell)}</{tag}>' for cell in row[1:])

    rows = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    head = f"<tr>{cells(table.head, 'th')}</tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _check(check: Check) -> str:
    sign, word = _SIGNS[check.status]
    return (
        f'<div class="check {check.status}"><div class="sign" aria-hidden="true">{sign}</div><div>'
        f"<b>{escape(check.title)} <small>({word})</small></b>"
        f'<p>{escape(check.meaning)}</p><p class="soft">{escape(check.found)}</p></div></div>'
    )


def _figure(figure: Figure) -> str:
    return (
        f'<figure><label><input type="checkbox" aria-label="Show this figure in full size">'
        f'<img src="{png_address(figure.axes)}" alt="{escape(figure.alt)}"></label>'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def png_address(axes: "np.ndarray | matplotlib.axes.Axes") -> str:
    """The figure of some axes as a ``data:`` address of a PNG image; the figure is closed."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure = (axes.flat[0] if isinstance(axes, np.ndarray) else axes).get_figure(root=True)
    assert figure is not None
    # Drawn here, since savefig draws twice; white behind, since a page may be read on a dark screen.
    figure.set_dpi(_DPI)
    figure.set_facecolor("white")
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, "png")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
