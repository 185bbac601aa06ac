"""``mrsds init``, and a fit without a configuration: what suits a recording."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mrsds_ppl.commands.arguments import is_configuration
from mrsds_ppl.config.loading import RunConfig, config_of
from mrsds_ppl.config.names import RECORDING
from mrsds_ppl.config.recording import make_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import BinWidthError, ConfigError, RunError
from mrsds_ppl.storage.atomic import write_text

_SPIKE_BINS = 0.02  # seconds: counts above zero, and still narrow enough for what switches


def suited(overrides: Mapping[str, Any]) -> tuple[RunConfig, Trials]:
    """The configuration that suits a recording, and its trials: the defaults of :func:`mrsds_ppl.fit`.

    Emissions are Poisson where all signals are counts. Where nothing says otherwise there are two states, two latents
    of each region, and spike times are counted in bins of 20 ms.

    Args:
        overrides: values by dotted path, which win; they name the recording, as ``data.data_path`` or as
            ``data.data_source``, a loader.

    Raises:
        ConfigError, DataError: a key, a value or the recording is wrong.
    """
    data: dict[str, Any] = {"data_source": RECORDING}
    model: dict[str, Any] = {"num_states": 2, "latent_sizes": 2}
    sections, note = {"data": data, "model": model}, None
    config = config_of(sections, overrides)
    try:
        trials = make_trials(config)
    except BinWidthError:
        data["bin_width"] = _SPIKE_BINS
        note = f"spikes are counted in bins of {_SPIKE_BINS} s; data.bin_width takes another width"
        config = config_of(sections, overrides)
        trials = make_trials(config)
    if trials.holds_counts and config.model.emissions.dist == RunConfig().model.emissions.dist:
        model["emissions"] = {"dist": "poisson"}
        config = config_of(sections, overrides)
    return (config if note is None else config.noting(note)), trials


def init(
    recording: str,
    *,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Write a short commented configuration that suits a recording, or print it.

    Args:
        recording: the file, or ``file.py:function``.
        out: the configuration, a YAML file that is not there yet; None to print it.
        settings: how the recording is read, keys of the section ``data`` by dotted path.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: nothing is written then.
    """
    if out is not None and not is_configuration(str(out)):
        raise RunError(f"{out}: allowed endings are .yaml and .yml, by which fit knows a configuration")
    if out is not None and out.exists():
        raise RunError(f"{out}: there is such a file already; give another name with -o, or remove it")
    settings = dict(settings or {})
    if others := [key for key in settings if not key.startswith("data.")]:
        raise ConfigError(
            f"--set {others[0]}: allowed are keys of data, such as data.bin_width=0.02; write others into the file"
        )
    source = "data.data_source" if ".py:" in recording else "data.data_path"
    text = _text(*suited({**settings, source: recording}))
    if out is None:
        log(text)
    else:
        write_text(out, f"{text}\n")
        log(f"{out}: written; edit it, then mrsds fit {out}")


def _text(config: RunConfig, trials: Trials) -> str:
    """The YAML of what :func:`suited` found, with what is known of the recording in comments."""
    lengths, model, training = trials.lengths, config.model, config.training
    usual = RunConfig().model_dump(mode="json")["data"]
    data = {name: value for name, value in config.model_dump(mode="json")["data"].items() if value != usual[name]}
    data["bin_width"] = trials.bin_width
    said = {"bin_width": "  # seconds, where the recording does not say"}
    lines = [
        f"# {trials.num_trials} trials of {lengths.min()} to {lengths.max()} bins of {trials.bin_width:g} s. Regions:",
        *(
            f"#   {_plain(name)}: {size} neurons"
            for name, size in zip(trials.region_names, trials.region_sizes, strict=True)
        ),
        *(f"# {_plain(note)}" for note in config.notes),
        "# Keys that are left out have defaults; NAME-config.yaml of a run lists all.",
        "",
        "data:",
        *(f"  {name}: {json.dumps(value, ensure_ascii=False)}{said.get(name, '')}" for name, value in data.items()),
        "",
        "model:",
        f"  num_states: {model.num_states}    # K: begin with 1, then 2; another only if held-out trials ask for it",
        f"  latent_sizes: {model.latent_sizes}  # of each region, or a list in the order above; 2 to 6 (mrsds compare)",
    ]
    if trials.num_inputs:
        lines += [
            f"  ux: true         # inputs drive the latents: {', '.join(map(_plain, trials.input_names))}",
            "  uz: false        # true: they drive the discrete state too",
        ]
    if trials.num_stages:
        lines.append("  sz: false        # true: stages of the trials drive the discrete state")
    law = "all signals are counts" if trials.holds_counts else "for continuous signals; poisson for counts"
    lines += [
        "  emissions:",
        f"    dist: {model.emissions.dist}  # {law}",
        "",
        "training:",
        "  optimiser:",
        f"    num_steps: {training.optimiser.num_steps}  # more where the bound still rises at the end",
        "  split:",
        f"    test_perc: {training.split.test_perc}   # share of trials kept out of training",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text for a comment, which ends with its line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
