"""The page of a sweep: evidence by states and latents, the choice, what latents explain, agreement of seeds, cost."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from mrsds_ppl import __version__
from mrsds_ppl.analysis.evidence import Choice
from mrsds_ppl.output.report.checks import Check
from mrsds_ppl.output.report.page import Figure, Section, Table, page
from mrsds_ppl.sweeps.choice import choose, compared, counted_seeds, shape_named, shapes
from mrsds_ppl.sweeps.figures import plot_evidence

# Fewer differences give no standard error to speak of; under such an agreement seeds tell different stories.
_FEW_TRIALS, _AGREES = 20, 0.8


def sweep_page(cells: xr.Dataset, name: str, failed: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        cells: see :class:`mrsds_ppl.sweeps.results.Sweep`.
        name: of the sweep.
        failed: what went wrong, by name of the cell.
    """
    choice, table = choose(cells), compared(cells)
    sections = [_explained(cells, choice), _agreement(cells, table), _cost(cells, table)]
    if failed:
        text = ["These were not fitted. The same command tries them again, and leaves alone those that are done."]
        rows = [[cell, error] for cell, error in failed.items()]
        sections.append(Section("failed", "What failed", text, [Table(["Cell", "what went wrong"], rows)]))
    return page(
        f"Sweep of {name}",
        "How many discrete states, and how many latents of each region, the held-out trials ask for",
        _facts(cells, choice),
        _checks(cells, table, choice, failed),
        _evidence(cells, table, choice),
        sections,
        [("Every cell", _listing(cells))],
        what="sweep",
    )


def _facts(cells: xr.Dataset, choice: Choice | None) -> list[tuple[str, str]]:
    sizes, folds = cells.sizes, cells.sizes["fold"]
    total = int(np.prod([sizes[name] for name in ("num_states", "latent_size", "seed", "fold")]))
    minutes = float(cells.seconds.sum()) / 60
    spent = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    return [
        ("Chosen", "nothing: see what failed" if choice is None else choice.chosen),
        ("Regions", ", ".join(map(str, cells.region.values))),
        ("States", ", ".join(map(str, cells.num_states.values))),
        ("Latents of each region", "; ".join(map(str, cells.latent_size.values))),
        ("Seeds", f"{sizes['seed']}"),
        (
            "Held out",
            f"{sizes['trial']} {'trial' if sizes['trial'] == 1 else 'trials'}, "
            + (f"each in one of {folds} folds" if folds > 1 else "one split, the same for all"),
        ),
        ("Fits", f"{int(cells.bound.notnull().sum())} of {total} done, {spent} of computing together"),
        ("Software", f"mrsds-ppl {__version__}"),
    ]


def _checks(cells: xr.Dataset, table: xr.Dataset, choice: Choice | None, failed: Mapping[str, str]) -> list[Check]:
    total, done, trials = cells.bound.size, int(cells.bound.notnull().sum()), cells.sizes["trial"]
    found = [
        Check(
            "good" if done == total else "look" if choice is not None else "bad",
            "Every cell was fitted",
            f"{done} of {total} cells are done, {len(failed)} failed.",
            "Shapes whose folds are not all there take no part in the choice."
            if done < total
            else "Nothing is missing.",
        ),
        Check(
            "good" if trials >= _FEW_TRIALS else "look",
            "Enough held-out trials",
            f"{trials} held-out trials.",
            "The standard errors are to be relied on."
            if trials >= _FEW_TRIALS
            else "Of so few trials the standard error is itself a guess. More folds hold out more trials.",
        ),
    ]
    if choice is None:
        return found
    best, chosen = shape_named(cells, choice.best), shape_named(cells, choice.chosen)
    names = (("states", best.num_states, cells.num_states), ("latents", best.latent_size, cells.latent_size))
    ends = [what for what, value, axis in names if len(axis) > 1 and value == axis.values[-1]]
    found.append(
        Check(
            "look" if ends else "good",
            "The best lies inside the grid",
            f"The best is {best}, the choice {chosen}.",
            f"More {' and '.join(ends)} were not tried and may do better still. Extend the grid: done cells are kept."
            if ends
            else "More states or latents than the best ones were tried and did no better.",
        )
    )
    agreement = float(table.state_agreement.sel(chosen._asdict()))
    if np.isfinite(agreement):
        found.append(
            Check(
                "good" if agreement >= _AGREES else "look",
                "Seeds find the same states",
                f"Two seeds of the choice agree in {agreement:.1%} of the bins.",
                "The states are a finding of the recording."
                if agreement >= _AGREES
                else "Several ways to cut time into states do about as well: trust what they agree in.",
            )
        )
    return found


def _evidence(cells: xr.Dataset, table: xr.Dataset, choice: Choice | None) -> Section:
    if choice is None:
        chosen = "No number of states and latents has finite evidence of all held-out trials, so nothing is chosen."
    elif cells.sizes["trial"] == 1:
        chosen = f"Chosen is {choice.chosen}, the best: of one held-out trial no error is known. Hold out more."
    else:
        chosen = (
            f"Chosen is {choice.chosen}, the smallest program within two standard errors of the best ({choice.best}). "
            "A state or latent too many costs little evidence, which is why the best is not the choice."
        )
    text = [
        "Evidence is log p(y) of trials that were held out, states and latents summed out, in nats a trial: higher is "
        "better. Of the seeds of one fold the one with the highest bound on its training trials counts. Errors are "
        "standard errors over trials, those to the best of the differences of the same trials; spreads are standard "
        "deviations of the mean.",
        chosen,
    ]
    rows = []
    for shape in shapes(cells):
        one = table.sel(shape._asdict())
        rows.append(
            [
                f"{shape}{' (chosen)' if choice is not None and str(shape) == choice.chosen else ''}",
                _number(one.parameters, 0),
                _with_error(one.evidence, one.error),
                _with_error(one.difference, one.difference_error),
                _number(one.over_seeds, 2),
                _number(one.over_folds, 2),
            ]
        )
    head = [
        *("Program", "parameters", "evidence (error)", "to the best (error)", "spread of seeds", "spread of folds"),
    ]
    parts: list[Figure | Table] = [Table(head, rows)]
    if choice is not None:
        alt = f"Evidence by number of states, a line for each number of latents; chosen is {choice.chosen}."
        caption = (
            "Difference to the best program in nats a trial. Bars: standard error of the differences of the same "
            "trials. Small dots: single seeds. Circle: the choice."
        )
        parts.insert(0, Figure(plot_evidence(cells), alt, caption))
    return Section("evidence", "Held-out evidence", text, parts)


def _explained(cells: xr.Dataset, choice: Choice | None) -> Section:
    """Of the counted seeds, means over folds, at the number of states that is chosen."""
    states = int(cells.num_states.values[-1]) if choice is None else shape_named(cells, choice.chosen).num_states
    row, counted = cells.num_states.values.tolist().index(states), counted_seeds(cells)
    shares = cells.variance_explained.transpose(
        "num_states", "latent_size", "fold", "seed", "region", "component"
    ).values[row]
    folds, rows = np.arange(cells.sizes["fold"]), []
    for place, size in enumerate(cells.latent_size.values.tolist()):
        known = folds[counted[row, place] >= 0]
        of_size = shares[place, known, counted[row, place, known]]
        for number, region in enumerate(cells.region.values):
            mean = of_size[:, number].mean(0) if len(known) else np.full(cells.sizes["component"], np.nan)
            total = np.nansum(mean) if np.isfinite(mean).any() else np.nan
            rows.append([f"d={size}, {region}", *(_percent(share) for share in mean), _percent(total)])
    text = [
        f"Share of the variance of a region's held-out signals that each of its latents explains, with K={states}, "
        "latents turned so that the first explains most. A last latent that explains next to nothing is not needed. Of "
        "spike counts most of the variance is noise, so compare the latents with each other.",
    ]
    head = ["Program, region", *(f"latent {number + 1}" for number in range(cells.sizes["component"])), "together"]
    return Section("latents", "What each latent explains", text, [Table(head, rows)])


def _agreement(cells: xr.Dataset, table: xr.Dataset) -> Section:
    text = [
        "The same fit from other seeds, on the same held-out trials. States: share of bins in which two seeds have the "
        "same likeliest state once states are matched. Messages: correlation over bins of the size of a message, mean "
        "over all messages between regions and from inputs. What returns from seed to seed is a finding of the "
        "recording.",
    ]
    if cells.sizes["seed"] == 1:
        text.append("There is one seed, so how far seeds agree is not known: --seeds 3.")
    rows = []
    for shape in shapes(cells):
        one = table.sel(shape._asdict())
        rows.append([str(shape), _percent(one.state_agreement), _number(one.message_agreement, 2)])
    return Section("seeds", "Whether seeds agree", text, [Table(["Program", "states", "messages"], rows)])


def _cost(cells: xr.Dataset, table: xr.Dataset) -> Section:
    rows = []
    for shape in shapes(cells):
        one = table.sel(shape._asdict())
        done = int(one.done)
        each = float(one.seconds) / done if done else np.nan
        rows.append([str(shape), str(done), _number(each, 0), _number(one.seconds, 0), _number(one.peak_memory, 0)])
    text = [
        "Seconds of one worker with one core, compiling included, which the first fit of a shape does. Memory is the "
        "largest that a fit held, with the program itself."
    ]
    head = ["Program", "fits", "seconds a fit", "seconds together", "peak memory (MB)"]
    return Section("cost", "What it cost", text, [Table(head, rows)])


def _listing(cells: xr.Dataset) -> str:
    """One line for each cell; a star marks the seed that counts."""
    lines = ["  K  d        seed fold  bound (nats per value)  evidence (nats a trial)  seconds      MB"]
    counted = counted_seeds(cells)
    for k, states in enumerate(cells.num_states.values):
        for d, size in enumerate(cells.latent_size.values.tolist()):
            for fold in range(cells.sizes["fold"]):
                for seed in range(cells.sizes["seed"]):
                    one = cells.isel(num_states=k, latent_size=d, seed=seed, fold=fold)
                    mean = one.evidence.values[cells.trial_fold.values == fold].mean()
                    star = "*" if counted[k, d, fold] == seed else " "
                    lines.append(
                        f"{states:3d}  {size!s:8} {seed:4d}{star} {fold:3d} {float(one.bound):23.5f} {mean:24.2f} "
                        f"{float(one.seconds):8.0f} {float(one.peak_memory):7.0f}"
                    )
    return "\n".join(lines)


def _number(value: xr.DataArray | float, digits: int) -> str:
    return f"{float(value):,.{digits}f}" if np.isfinite(float(value)) else "-"


def _percent(value: xr.DataArray | float) -> str:
    return f"{float(value):.1%}" if np.isfinite(float(value)) else "-"


def _with_error(value: xr.DataArray, error: xr.DataArray) -> str:
    if not np.isfinite(float(value)):
        return "-"
    return f"{float(value):.2f}" + (f" ({float(error):.2f})" if np.isfinite(float(error)) else "")
