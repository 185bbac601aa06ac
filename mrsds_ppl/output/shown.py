"""How a fit shows itself: a few lines on a terminal, a small table in a notebook."""

from html import escape
from typing import TYPE_CHECKING

from mrsds_ppl.data.split import Split

if TYPE_CHECKING:
    import mrsds_ppl.fitted


def as_text(fit: "mrsds_ppl.fitted.Fit") -> str:
    """Name, sizes and scores in a few lines."""
    facts = _facts(fit)
    width = max(len(name) for name, _ in facts)
    return "\n".join([f"<Fit {fit.name}>", *(f"  {name:{width}}  {value}" for name, value in facts)])


def as_html(fit: "mrsds_ppl.fitted.Fit") -> str:
    """The same as a table."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in _facts(fit)
    )
    return f"<div><b>Fit {escape(fit.name)}</b><table><tbody>{rows}</tbody></table></div>"


def _facts(fit: "mrsds_ppl.fitted.Fit") -> list[tuple[str, str]]:
    trials, split, model = fit.trials, fit.split, fit.model
    sizes = ", ".join(f"{name} {n}" for name, n in zip(trials.region_names, trials.region_sizes, strict=True))
    facts = [
        ("regions (neurons)", sizes),
        ("model", f"{model.num_states} states, latents {list(model.latent_sizes)}, {_law(fit)} emissions"),
        ("inference", f"{fit.config.inference.guide}, {fit.config.inference.encoder_phrase}; {fit.trained.step} steps"),
        ("trials", f"{split.train.num_trials} for training, {split.test.num_trials} for test{_between(split)}"),
        ("test R²", f"{_score(fit, 'test_r2s')} given all data, {_score(fit, 'test_gen1_r2s')} one bin ahead"),
    ]
    if len(fit.hidden_neurons):
        bits = f", {_score(fit, 'cosmooth_bps')} bits per spike" if "cosmooth_bps" in fit.scores else ""
        facts.append(("hidden neurons", f"R² {_score(fit, 'cosmooth_r2s')}{bits}"))
    return [
        *facts,
        ("files", f"{fit.paths.folder / fit.paths.name}*" if fit.paths else "none; fit.save(path) writes them"),
    ]


def _between(split: Split) -> str:
    return f", {split.gap.num_trials} left out between" if split.gap.num_trials else ""


def _law(fit: "mrsds_ppl.fitted.Fit") -> str:
    return fit.config.model.emissions.phrase


def _score(fit: "mrsds_ppl.fitted.Fit", name: str) -> str:
    return f"{fit.scores[name][0]:.3f}"
