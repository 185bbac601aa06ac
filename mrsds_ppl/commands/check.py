"""``mrsds check``: a configuration and its recording validated, and what would be fitted.

It answers at once, so nothing here imports the fit, and nothing is compiled.
"""

from mrsds_ppl.config.choice import choose_start
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import make_trials, split_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.output.describe import describe, notes


def check(config: RunConfig, trials: Trials | None = None) -> str:
    """Validate configuration and recording, and say what would be fitted, how long that takes, and in what memory.

    Args:
        config: the validated configuration.
        trials: its recording, where that was read already.

    Raises:
        ConfigError, DataError: what is wrong.
    """
    trials = make_trials(config) if trials is None else trials
    split = split_of(config, trials)
    choice = choose_start(config, split.train)
    run = choice.applied_to(config)
    return "\n".join(
        [describe(run, trials, split), choice.line, *(f"note: {note}" for note in notes(run, trials, split))]
    )
