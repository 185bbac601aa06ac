"""The one adapter: published keys and values, and earlier spellings of our own, as the sections of today.

:func:`read_published` takes what a user wrote and gives what :mod:`mrsds_ppl.config.sections` declares. Nothing else in
the package knows another spelling.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mrsds_ppl.errors import ConfigError

__all__ = ["IGNORED_KEYS", "RENAMED", "Reading", "dotted", "read_published"]

Path = tuple[str, ...]

# Keys of published files that change nothing here.
IGNORED_KEYS = (
    *(f"data.{key}" for key in ("trials", "stages", "history", "hist_tlen", "random_zic", "nle", "nle_type")),
    *(f"data.{key}" for key in ("regime", "accum_only", "history_effect", "split_obs", "region")),
    *("model.xic.layers", "model.xic.activations", "inference.num_samples", "inference.xic_inf"),
    *(f"training.{key}" for key in ("xent", "xent_init", "xent_rate", "xent_steps", "xent_kickin_steps")),
    *(f"training.{key}" for key in ("xentropy_annealing", "flat_learning_rate", "use_inverse_annealing_lr")),
    *(f"training.{key}" for key in ("use_true_x", "use_true_z", "mode", "save_training_path")),
)

# A key or section, and where it is today. Longer paths come first.
RENAMED = {
    "data.num_trials": "data.simulation.num_trials",
    "data.uz": "data.simulation.cue",
    "model.latent_dims": "model.latent_sizes",
    "model.weight_prior.scale": "model.weight_prior",
    "model.xic": "model.initial",
    "model.ztransition": "model.transitions",
    "model.xtransition.inputs.layers": "model.dynamics.input_layers",
    "model.xtransition.inputs.activations": "model.dynamics.input_activations",
    "model.xtransition.dynamics": "model.dynamics",
    "model.xtransition": "model.dynamics",
    "inference.embedding.layers": "inference.encoder_options.embedding_layers",
    "inference.embedding.activations": "inference.encoder_options.embedding_activations",
    "inference.transformer_params": "inference.encoder_options",
    "inference.convolution_params": "inference.encoder_options",
    **{
        f"training.{key}": f"training.optimiser.{key}"
        for key in (
            *("batch_size", "num_steps", "learning_rate", "lr_warmup_steps", "gradient_clip", "log_steps"),
            *("save_steps", "num_particles", "restarts", "follow_bound", "dropout", "dropout_trial_perc"),
            *("dynamics_only", "num_steps_do", "lr_warmup_steps_do"),
        )
    },
    "training.num_samples": "training.optimiser.num_particles",
    **{f"training.{key}": f"training.start.{key}" for key in ("evidence_steps", "transition_rounds")},
    "training.switch_init_steps": "training.start.steps",
    **{
        f"training.{key}": f"training.regimen.{key}"
        for key in (
            *("beta_max", "beta_warmup_steps", "x0_weight", "overshoot", "kl_z_scale", "smooth_coef"),
            *("message_sparsity", "message_bending"),
        )
    },
    "training.t_init": "training.regimen.temperature.t_init",
    "training.t_min": "training.regimen.temperature.t_min",
    "training.annealing_rate": "training.regimen.temperature.rate",
    "training.annealing_steps": "training.regimen.temperature.steps",
    "training.annealing_kickin_steps": "training.regimen.temperature.kickin_steps",
    **{f"training.{key}": f"training.split.{key}" for key in ("test_perc", "drop_perc", "folds", "fold")},
    **{f"training.{key}_seed": f"training.seeds.{key}" for key in ("data", "model", "train")},
}

# Values of another name.
_VALUES: dict[str, dict[str, str]] = {
    "data.data_source": {
        "lv-multiswitch2": "lotka-volterra",
        "double-well-2smoothnew": "double-well",
        "double-well-2smoothnew2b": "double-well",
    },
    # What the published program calls its inference types (its option -mtype).
    "inference.guide": {"mrsds": "mean_field", "svae": "structured", "s-svae": "switching_structured"},
    "model.dynamics.input_func_type": {"seperate": "separate"},
}
# Said when they are read, since their names do not say where they went.
_SAID = ("data.num_trials", "data.uz", "training.num_samples")


class Reading(NamedTuple):
    """The sections of today, what was read as something else or not at all, and how each key was written."""

    values: dict[str, Any]
    notes: tuple[str, ...]
    written: dict[Path, Path]


class _Leaf(NamedTuple):
    written: Path
    value: object


_Leaves = dict[Path, _Leaf]
Label = Callable[[Path], str]


def dotted(path: Path) -> str:
    """A path as YAML and ``--set`` have it."""
    return ".".join(path)


_TABLE = {tuple(old.split(".")): tuple(new.split(".")) for old, new in RENAMED.items()}
_IGNORED = {tuple(key.split(".")) for key in IGNORED_KEYS}


def read_published(*sources: Mapping[str, Any], label: Label = dotted) -> Reading:
    """What a user wrote, with every key where it is today.

    Args:
        sources: nested mappings; a later one wins, key by key, as the command line does over the file.
        label: how a path is shown.

    Raises:
        ConfigError: a source has one key in two spellings, or keys that contradict each other, or sets a key below a
            value.
    """
    notes: list[str] = []
    merged: _Leaves = {}
    for source in sources:
        leaves = _leaves(source, notes, label)
        _transformer(leaves, notes, label)
        _inputs_left_out(leaves, notes, label)
        _start(leaves, label)
        _translate(leaves, notes, label)
        _choose_temperature(merged, leaves, label)
        _put(merged, leaves, label)
    _temperature(merged, notes, label)
    values: dict[str, Any] = {}
    for path, leaf in merged.items():
        holder = values
        for name in path[:-1]:
            holder = holder.setdefault(name, {})
        holder[path[-1]] = leaf.value
    return Reading(values, tuple(dict.fromkeys(notes)), {path: leaf.written for path, leaf in merged.items()})


def _leaves(source: Mapping[str, Any], notes: list[str], label: Label) -> _Leaves:
    """Values by their paths of today; sections with nothing in them are left out."""
    found: _Leaves = {}
    ignored = []
    for written, value in _flat(source, ()):
        skipped = next((key for key in _IGNORED if written[: len(key)] == key), None)
        if skipped is not None:
            ignored += [] if value is None else [label(skipped)]
            continue
        path = _today(written, value)
        if (value is None or value == {}) and _says_nothing(written, path):
            continue
        if path in found:
            first, second = sorted((label(found[path].written), label(written)))
            raise ConfigError(f"{first} and {second}: found both, which are one key; remove one of them")
        found[path] = _Leaf(written, value)
        if dotted(written) in _SAID:
            notes.append(f"{label(written)} is read as {label(path)}")
    if ignored:
        names = list(dict.fromkeys(ignored))
        notes.append(f"{', '.join(names)}: {'has' if len(names) == 1 else 'have'} no effect on this run")
    return found


def _says_nothing(written: Path, path: Path) -> bool:
    """Whether a key without a value is one of another spelling, or a section of them."""
    if path[-1] == "positional":
        return False
    section = any(written == old[: len(written)] for old in _TABLE) and path not in _TABLE.values()
    return section or path != written or written == ("inference", "encoder")


def _flat(values: Mapping[str, Any], above: Path) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []
    for key, value in values.items():
        path = (*above, str(key))
        found += _flat(value, path) if isinstance(value, Mapping) and value else [(path, value)]
    return found


def _today(written: Path, value: object) -> Path:
    if written == ("training", "start") and value is not None and not isinstance(value, Mapping):
        return (*written, "method")
    old = next((old for old in _TABLE if written[: len(old)] == old), None)
    return written if old is None else _TABLE[old] + written[len(old) :]


def _put(merged: _Leaves, added: _Leaves, label: Label) -> None:
    """Values of a later source over those before it."""
    for path, leaf in added.items():
        for length in range(1, len(path)):
            above = merged.get(path[:length])
            if above is None:
                continue
            if above.value is not None and above.value != {}:
                raise ConfigError(
                    f"{label(leaf.written)}: cannot be set, since {label(above.written)} is a value and not a section"
                )
            del merged[path[:length]]
        for below in [other for other in merged if other[: len(path)] == path]:
            del merged[below]
        merged[path] = leaf


def _switch(merged: _Leaves, path: Path, label: Label) -> bool | None:
    """The value of a published switch, which is taken out."""
    leaf = merged.pop(path, _Leaf(path, None))
    if leaf.value is None or isinstance(leaf.value, bool):
        return leaf.value
    raise ConfigError(f"{label(leaf.written)}: found {leaf.value!r}; allowed: true or false")


_TEMPERATURE, _ANNEALING = ("training", "regimen", "temperature"), ("training", "temperature_annealing")


def _of_temperature(leaves: _Leaves) -> _Leaves:
    return {path: leaf for path, leaf in leaves.items() if path[: len(_TEMPERATURE)] == _TEMPERATURE}


def _choose_temperature(merged: _Leaves, leaves: _Leaves, label: Label) -> None:
    """The published switch and the section of today, of which a later one wins."""
    now = [leaf for leaf in _of_temperature(leaves).values() if leaf.written[: len(_TEMPERATURE)] == _TEMPERATURE]
    if now and _ANNEALING in leaves:
        both = f"{label(now[0].written)} and {label(_ANNEALING)}"
        raise ConfigError(f"{both}: found both, which are one key; remove one of them")
    if now:
        merged[_ANNEALING] = _Leaf(_ANNEALING, all(leaf.value is not None for leaf in now))


def _temperature(merged: _Leaves, notes: list[str], label: Label) -> None:
    """The published switch, without which the numbers of the temperature have no effect."""
    on, below = _switch(merged, _ANNEALING, label), _of_temperature(merged)
    if on:
        if not any(len(path) > len(_TEMPERATURE) for path in below):
            merged[_TEMPERATURE] = _Leaf(_ANNEALING, {})
        return
    for path in below:
        del merged[path]
    if names := [label(leaf.written) for leaf in below.values() if leaf.value is not None]:
        notes.append(f"{', '.join(names)}: no effect on this run without {label(_ANNEALING)}: true")


def _transformer(merged: _Leaves, notes: list[str], label: Label) -> None:
    switch_path, path = ("inference", "transformer"), ("inference", "encoder")
    if not _switch(merged, switch_path, label):
        return
    if path in merged and merged[path].value != "transformer":
        raise ConfigError(
            f"{label(merged[path].written)} and {label(switch_path)}: found {merged[path].value} and true, which both "
            "choose the encoder; remove one of them"
        )
    merged[path] = _Leaf(switch_path, "transformer")
    notes.append(f"{label(switch_path)}: true is read as {label(path)}: transformer")


def _inputs_left_out(merged: _Leaves, notes: list[str], label: Label) -> None:
    switch_path = ("model", "dynamics", "no_us_input")
    written = merged[switch_path].written if switch_path in merged else switch_path
    if not _switch(merged, switch_path, label):
        return
    path = ("model", "ux")
    if path in merged and merged[path].value:
        raise ConfigError(
            f"{label(merged[path].written)}: found true, but {label(written)} is true too; remove one of them"
        )
    merged[path] = _Leaf(written, False)
    notes.append(f"{label(written)}: true is read as {label(path)}: false")


def _start(merged: _Leaves, label: Label) -> None:
    """``switch_init_steps: 0`` was no start."""
    steps, method = ("training", "start", "steps"), ("training", "start", "method")
    leaf = merged.get(steps)
    if leaf is None or leaf.written == steps or str(leaf.value) != "0":
        return
    del merged[steps]
    if method in merged and merged[method].value not in ("none", "auto"):
        raise ConfigError(
            f"{label(merged[method].written)}: found {merged[method].value} with {label(leaf.written)} 0, which leaves "
            "a start out; allowed: at least 1"
        )
    merged[method] = _Leaf(leaf.written, "none")


def _translate(merged: _Leaves, notes: list[str], label: Label) -> None:
    """Values of another name, and the ways in which published files write nothing."""
    for path, (written, value) in list(merged.items()):
        new = value
        if path[-1].endswith("activations") and isinstance(value, list | tuple):
            new = [None if name == "null" else name for name in value]
        elif path[-1].endswith("layers") and isinstance(value, list | tuple) and value and value[-1] is None:
            new = list(value[:-1])  # the output layer
        elif path[-1] == "final_activation" and value == "null":
            new = None
        elif path[-1] == "positional" and value is None:
            new = "none"
        elif isinstance(value, str) and value in _VALUES.get(dotted(path), {}):
            new = _VALUES[dotted(path)][value]
            notes.append(f"{label(written)}: {value} is read as {new}")
        merged[path] = _Leaf(written, new)
