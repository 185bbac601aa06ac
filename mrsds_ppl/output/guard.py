"""Whether a run may begin under its name: nothing that was fitted is replaced or mixed by mistake."""

from typing import Any

import yaml

from mrsds_ppl.config.loading import VERSIONS, RunConfig, load_config
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.storage.paths import RunPaths

DATA_DIGEST = "data"
# What may differ between a run and what goes on with it: where the recording lies (its digest says that it is the same)
# and what is written of the posterior.
_FREE = ("data.data_path",)
_COMPARED = ("data", "model", "inference", "training")


def demand_free_name(paths: RunPaths) -> None:
    """Raise RunError where files of a run stand under the name already: finished ones, or checkpoints to go on from."""
    where = paths.folder / paths.name
    if paths.posterior.exists() or paths.mat.exists():
        raise RunError(
            f"{where}: a finished run has this name. Give another one (--name, or another save_to), or replace it "
            "(--overwrite)."
        )
    steps = [Checkpoints(folder).latest() for folder in (paths.restart_checkpoints, paths.checkpoints)]
    found = [step for step in steps if step is not None]
    if found:
        raise RunError(
            f"{where}: a run of this name was stopped and has a checkpoint of step {max(found)}. Go on from there "
            "(--resume), start it anew (--overwrite), or give another name (--name)."
        )


def demand_same_run(paths: RunPaths, config: RunConfig, trials: Trials) -> None:
    """Raise RunError where the run of this name was begun with other settings or another recording.

    Args:
        paths: of the run.
        config: what is asked for now, as it would be written.
        trials: the recording.
    """
    if not paths.config.exists():
        raise RunError(f"{paths.config}: no such file, so there is no run to resume; leave --resume out to start one.")
    if changed := changed_settings(load_config(paths.config), config, _FREE):
        raise RunError(
            f"{paths.config}: the run was begun with other settings: {changed}. Resume it as it was begun, or "
            "start another run (--name)."
        )
    noted = versions_of(paths).get(DATA_DIGEST)
    if noted is not None and noted != trials.digest:
        raise RunError(
            f"{paths.config}: the run was begun with another recording (digest {noted}, found {trials.digest}). Give "
            "the one it was begun with (--data-path), or start another run (--name)."
        )


def changed_settings(before: RunConfig, now: RunConfig, free: tuple[str, ...]) -> str:
    """Which keys of two configurations differ, in words; empty where none does.

    Args:
        before, now: the two.
        free: beginnings of keys that may differ.
    """
    old, new = (_flat(some.model_dump(mode="json")) for some in (before, now))
    changed = [key for key in new if old.get(key) != new[key] and not key.startswith(free)]
    more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(f"{key} was {old.get(key)} and is {new[key]}" for key in changed[:3]) + more


def versions_of(paths: RunPaths) -> dict[str, str]:
    """What a run noted of the packages it ran on and of its recording."""
    noted = yaml.safe_load(paths.config.read_text(encoding="utf-8")).get(VERSIONS) or {}
    return {str(name): str(value) for name, value in noted.items()}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not prefix and name not in _COMPARED:
            continue
        key = f"{prefix}{name}"
        found |= _flat(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return found
