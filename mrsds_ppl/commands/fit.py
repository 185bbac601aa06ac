"""``mrsds fit`` and ``mrsds check``: from a configuration to a run's files, or to what would be fitted."""

from collections.abc import Callable
from pathlib import Path

from mrsds_ppl.build import make_trials
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.fit import fit_into_files
from mrsds_ppl.fitted import Fit
from mrsds_ppl.output.describe import describe, notes
from mrsds_ppl.plan import with_encoder
from mrsds_ppl.storage.paths import RunPaths


def fit(
    config: RunConfig,
    *,
    name: str,
    result_path: Path,
    resume: bool = False,
    overwrite: bool = False,
    gpu: int | None = None,
    log: Callable[[str], None] = print,
) -> Fit:
    """Fit the recording of a configuration and write the run's files.

    Args:
        config: the validated configuration.
        name: name of the run, the beginning of its files' names.
        result_path: folder of the files.
        resume, overwrite, gpu: see :func:`mrsds_ppl.fit.fit_into_files`.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: nothing is written then.
    """
    paths = RunPaths(Path(result_path), name)
    return fit_into_files(make_trials(config), config, paths, resume=resume, overwrite=overwrite, gpu=gpu, say=log)


def check(config: RunConfig) -> str:
    """Validate configuration and recording, and say what would be fitted."""
    trials = make_trials(config)
    split = split_trials(trials, config.training.test_perc, config.training.data_seed)
    run = with_encoder(config, split.train)
    return "\n".join([describe(run, trials, split), *(f"note: {note}" for note in notes(config, run))])
