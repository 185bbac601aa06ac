"""``mrsds fit``: from a configuration to a run's files."""

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from mrsds_ppl.analysis.summary import not_finite_sentence
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import make_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ScoreError
from mrsds_ppl.fit import FileOptions, fit_into_files
from mrsds_ppl.fitted import Fit
from mrsds_ppl.storage.paths import RunPaths


def fit(
    config: RunConfig,
    trials: Trials | None = None,
    *,
    name: str,
    result_path: Path,
    log: Callable[[str], None] = print,
    **options: Unpack[FileOptions],
) -> Fit:
    """Fit the recording of a configuration and write the run's files.

    Args:
        config: the validated configuration.
        trials: its recording, where that was read already.
        name: name of the run, the beginning of its files' names.
        result_path: folder of the files.
        log: prints a line for the user.
        options: see :func:`mrsds_ppl.fit.fit_into_files`.

    Raises:
        ConfigError, DataError, RunError: nothing is written then.
        ScoreError: a score is not finite; the files are written.
    """
    trials = make_trials(config) if trials is None else trials
    found = fit_into_files(trials, config, RunPaths(Path(result_path), name), say=log, **options)
    if (sentence := not_finite_sentence(found.scores, train=found.train, test=found.test)) is not None:
        raise ScoreError(f"{Path(result_path) / name}: {sentence}.")
    return found
