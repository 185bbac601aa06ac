"""A user's own guide, ``path/to/file.py:ClassName``: loaded, made, and checked against the program before compiling."""

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.readers.user_function import load_module
from mrsds_ppl.errors import ConfigError, MrsdsError
from mrsds_ppl.guides.guide import Guide
from mrsds_ppl.models.program import Program
from mrsds_ppl.ppl.markov import summed_out


def user_guide(source: str, model: Program, arguments: dict[str, Any]) -> AutoGuide:
    """The guide of a user's class.

    Args:
        source: ``path/to/file.py:ClassName``.
        model: the program.
        arguments: offered to the class by name, see :func:`make_of`.

    Raises:
        ConfigError: no such file or class, no guide, or its making failed.
    """
    kind = _load(source)
    try:
        guide = make_of(kind, model, arguments)
    except MrsdsError:
        raise
    except Exception as error:
        raise ConfigError(f"inference.guide: {source} cannot be made: {type(error).__name__}: {error}") from error
    for method, call in (("median", ({}, None)), ("sample_posterior", (None, {}, None))):
        try:
            inspect.signature(getattr(guide, method)).bind(*call)
        except TypeError:
            given = "params, batch" if method == "median" else "rng_key, params, batch, *, sample_shape=()"
            raise ConfigError(
                f"inference.guide: {source} needs a method {method}({given}) that returns a dict with 'x'"
            ) from None
    return guide


def make_of(kind: type[AutoGuide], model: Program, arguments: dict[str, Any]) -> AutoGuide:
    """``kind(model, ...)`` with those of the arguments that it takes, itself or by ``**kwargs`` for its parents."""
    taken: set[str] = set()
    for parent in kind.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
        taken |= {p.name for p in parameters}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return kind(model, **{name: value for name, value in arguments.items() if name in taken})


def check_sites(key: jax.Array, model: Program, guide: Guide, batch: Batch) -> None:
    """Compare the sites of a guide with those of the program, by shapes alone.

    Raises:
        ConfigError: a site that one of them lacks, or of another shape; it is named.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}

    def record(key: jax.Array) -> None:
        program = handlers.trace(handlers.seed(summed_out(model), key)).get_trace(batch)
        found["program"] = _shapes(program)

    jax.eval_shape(record, key)
    # Not compiled: guides of NumPyro keep values of their first call.
    found["guide"] = _shapes(handlers.trace(handlers.seed(guide, key)).get_trace(batch))
    name = type(guide).__name__
    for site, shape in found["program"].items():
        if site not in found["guide"]:
            raise ConfigError(
                f"inference.guide: {name} does not sample the program's site '{site}'; it samples "
                f"{sorted(found['guide'])}. Add numpyro.sample('{site}', ...) with values of shape {shape}"
            )
        if found["guide"][site] != shape:
            raise ConfigError(
                f"inference.guide: {name} samples site '{site}' with shape {found['guide'][site]}, but the program's "
                f"has {shape}"
            )
    for site in found["guide"]:
        if site not in found["program"] and site != "z":
            raise ConfigError(
                f"inference.guide: {name} samples a site '{site}', which the program lacks; allowed: "
                f"{sorted(found['program'])}. Mark helpers with infer={{'is_auxiliary': True}}"
            )


def _shapes(trace: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(jnp.shape(site["value"]))
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"] and not site["infer"].get("is_auxiliary")
    }


def _load(source: str) -> type[AutoGuide]:
    file, _, name = source.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"inference.guide: found {source!r}, but there is no file {file}; allowed: file.py:ClassName")
    try:
        module = load_module(path, "guide")
    except Exception as error:
        raise ConfigError(f"inference.guide: {path} cannot be imported: {type(error).__name__}: {error}") from error
    kind = getattr(module, name, None)
    if kind is None:
        own = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__]
        raise ConfigError(f"inference.guide: {path} has no class '{name}'; found {own}")
    if not (inspect.isclass(kind) and issubclass(kind, AutoGuide)):
        raise ConfigError(
            f"inference.guide: {source} is not a guide; allowed: a subclass of mrsds_ppl.guides.AmortizedGuide or of "
            "numpyro.infer.autoguide.AutoGuide"
        )
    return kind
