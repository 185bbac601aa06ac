"""The configuration of a fit that is asked for in Python, with messages that name Python's arguments."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from mrsds_ppl.config.loading import RunConfig, problems_of
from mrsds_ppl.config.messages import Spelling
from mrsds_ppl.config.names import RECORDING
from mrsds_ppl.config.published import Path, read_published
from mrsds_ppl.config.sections import TrainingConfig
from mrsds_ppl.errors import ConfigError

# Keys that are arguments of their own.
_ARGUMENTS: dict[Path, str] = {
    ("model", "num_states"): "num_states",
    ("model", "latent_sizes"): "latent_sizes",
    ("inference", "guide"): "guide",
    ("training", "start", "method"): "start",
    ("training", "split", "test_perc"): "test",
    **{("training", "seeds", name): "seed" for name in ("data", "model", "train")},
}


class FitOptions(TypedDict, total=False):
    """What may be said of a fit beside its states and latents, as in :func:`mrsds_ppl.fit`."""

    model: Mapping[str, Any] | None
    guide: str
    start: str
    training: Mapping[str, Any] | None
    test: float
    seed: int


def config_for(
    num_states: int,
    latent_sizes: int | Sequence[int],
    *,
    model: Mapping[str, Any] | None = None,
    guide: str = "gaussian_markov",
    start: str = "auto",
    training: Mapping[str, Any] | None = None,
    test: float = 0.1,
    seed: int = 0,
    emission: str,
) -> RunConfig:
    """The configuration that the arguments of :func:`mrsds_ppl.fit` stand for.

    Args:
        num_states: K.
        latent_sizes: latent dimensions of each region, or one number for all.
        model, training: keys of these sections of a configuration, in any accepted spelling, dotted ones too.
        guide: name of the guide.
        start: ``auto``, ``staged``, ``smoothing`` or ``none``.
        test: share of the trials that is kept for the test.
        seed: of data, model and training.
        emission: kind of emission where ``model`` names none.

    Raises:
        ConfigError: an argument, key or value is wrong, or one is given twice; all problems are named.
    """
    written = read_published(
        {"model": _nested("model", model), "training": _nested("training", training)}, label=_label
    )
    sizes = latent_sizes if isinstance(latent_sizes, int) else list(latent_sizes)
    always: dict[Path, Any] = {("model", "num_states"): num_states, ("model", "latent_sizes"): sizes}
    usual = TrainingConfig()
    asked: dict[Path, Any] = {}
    defaults: tuple[tuple[Path, Any, Any], ...] = (
        (("training", "start", "method"), start, usual.start.method),
        (("training", "split", "test_perc"), test, usual.split.test_perc),
        *((("training", "seeds", name), seed, 0) for name in ("data", "model", "train")),
    )
    for path, value, default in defaults:
        # A default gives way to a key.
        if value != default or path not in written.written:
            asked[path] = value
    values, spelled = written.values, dict(written.written)
    for path, value in {**always, **asked, ("inference", "guide"): guide}.items():
        argument = _ARGUMENTS[path]
        if path in written.written:
            raise ConfigError(f"{argument} and {_label(written.written[path])}: found both; give one of them")
        _set(values, path, value)
        spelled[path] = (argument,)
    if not any(path[:3] == ("model", "emissions", "dist") for path in spelled):
        _set(values, ("model", "emissions", "dist"), emission)
        spelled["model", "emissions", "dist"] = ("emission",)
    _set(values, ("data", "data_source"), RECORDING)
    # Once more, for values of another name.
    again = read_published(values, label=_label)
    reading = again._replace(notes=(*written.notes, *again.notes))
    found = problems_of(reading, Spelling(spelled, _label))
    if isinstance(found, RunConfig):
        return found
    raise ConfigError(found[0] if len(found) == 1 else f"{len(found)} problems\n" + "\n".join(f"  {p}" for p in found))


def _label(path: Path) -> str:
    """``training["num_steps"]`` for a key of an argument, ``seed`` for an argument."""
    return path[0] + "".join(f'["{name}"]' for name in path[1:])


def _nested(argument: str, given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{argument}: found {given!r}; allowed: a mapping of keys to values, such as {{}}")
    values: dict[str, Any] = {}
    for key, value in given.items():
        _set(values, tuple(str(key).split(".")), dict(value) if isinstance(value, Mapping) else value)
    return values


def _set(values: dict[str, Any], path: Path, value: object) -> None:
    for depth, name in enumerate(path[:-1]):
        holder = values.get(name)
        if holder is None:
            holder = values[name] = {}
        if not isinstance(holder, dict):
            raise ConfigError(f"{_label(path)}: cannot be set, since {_label(path[: depth + 1])} is a value")
        values = holder
    values[path[-1]] = value
