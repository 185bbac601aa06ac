"""Runs of one recording side by side, and the smallest that is as good as any: the story of ``mrsds compare``."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mrsds_ppl.analysis.evidence import Choice, program_size, smallest_adequate, trial_evidence
from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.errors import RunError
from mrsds_ppl.fitted import Fit


def compare(given: Sequence[str | Path], *, log: Callable[[str], None] = print) -> Choice:
    """Print the evidence of each run on its test trials, and name the smallest within two standard errors of the best.

    Args:
        given: the runs, see :func:`mrsds_ppl.storage.paths.find_run`.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: a run cannot be read, or two do not have the same test trials or names.
    """
    enable_compilation_cache()
    runs = [Fit.load(path) for path in given]
    _demand_same_trials(runs)
    sized = sorted(runs, key=lambda run: program_size(run.model))
    evidence = {name_of(run): trial_evidence(run.program, run.split.test) for run in sized}
    choice = smallest_adequate(evidence)
    log(f"{len(runs)} runs, {runs[0].split.test.num_trials} test trials; evidence log p(y) in nats a trial")
    width = max(map(len, evidence))
    log(f"{'run':{width}}  states  latents     parameters   evidence  to the best (standard error)")
    for run in sized:
        name = name_of(run)
        sizes = ",".join(map(str, run.model.latent_sizes))
        log(
            f"{name:{width}}  {run.model.num_states:6d}  {sizes:10s}  {program_size(run.model):10,d}  "
            f"{evidence[name].mean():9.2f}  {choice.difference[name]:8.2f} ({choice.error[name]:.2f})"
        )
    log(f"smallest within two standard errors of the best ({choice.best}): {choice.chosen}")
    return choice


def name_of(run: Fit) -> str:
    """The run as it was named, with its folder."""
    return run.name if run.paths is None else str(run.paths.folder / run.paths.name)


def _demand_same_trials(runs: Sequence[Fit]) -> None:
    names = [name_of(run) for run in runs]
    if len(set(names)) != len(names) or len(runs) < 2:
        raise RunError(f"found the runs {', '.join(names)}; give at least two different ones.")
    first = runs[0].split.test
    for run, name in zip(runs[1:], names[1:], strict=True):
        test = run.split.test
        same = np.array_equal(test.ids, first.ids) and test.y.shape == first.y.shape
        if not (same and np.array_equal(test.y, first.y, equal_nan=True)):
            raise RunError(
                f"{name}: its test trials are not those of {names[0]}; fit both to one recording with the same "
                "training.test_perc and training.data_seed."
            )
