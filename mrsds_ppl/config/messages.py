"""Pydantic's findings as messages for the person who wrote the YAML file."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from mrsds_ppl.config.names import hint, nearest
from mrsds_ppl.errors import ConfigError

# What pydantic's error types allow, by the beginning of the type's name.
_ALLOWED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "finite_number": "a finite number",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "tuple": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "too_short": "at least {min_length} entries",
}


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line per problem: the YAML path, what was found, what is allowed and the nearest known name."""
    return [_explain_one(problem, root) for problem in error.errors()]


def reject_unknown(path: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Raise ConfigError for the first of ``given`` that is not among the keys ``allowed`` under the YAML path."""
    for key in given:
        if key not in allowed:
            near = nearest(str(key), allowed)
            raise ConfigError(_unknown(path, key, f"{path}.{near}" if near else None, allowed))


def show(value: Any) -> str:
    """A value as YAML writes it, cut short."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def known_paths(root: type[BaseModel], prefix: str = "") -> list[str]:
    """Full YAML path of every key and section."""
    paths = []
    for name, field in root.model_fields.items():
        paths.append(prefix + name)
        if section := _section_class(field.annotation):
            paths += known_paths(section, f"{prefix}{name}.")
    return paths


def _explain_one(problem: Mapping[str, Any], root: type[BaseModel]) -> str:
    location, kind, context = problem["loc"], problem["type"], problem.get("ctx", {})
    path = _dotted(location)
    if kind == "extra_forbidden":
        section = root
        for name in location[:-1]:
            section = _section_class(section.model_fields[name].annotation) or section
        keys = list(section.model_fields)
        return _unknown(_dotted(location[:-1]), location[-1], _nearest_path(path, keys, root), keys)
    if kind == "missing":
        return f"{path}: this key is required here"
    if kind == "value_error":
        message = str(context["error"])
        if isinstance(problem["input"], dict | BaseModel):
            return f"{path}{message}"  # a section's own check begins with the key: ".activations: found"
        return f"{path}: found {show(problem['input'])}; {message}"
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        allowed = ", ".join([*names, "null"] if "None" in context["expected"] else names)
        return f"{path}: found {show(problem['input'])}; allowed: {allowed}{hint(str(problem['input']), names)}"
    for beginning, allowed in _ALLOWED.items():
        if kind.startswith(beginning):
            return f"{path}: found {show(problem['input'])}; allowed: {allowed.format(**context)}"
    return f"{path}: found {show(problem['input'])}; {problem['msg']}"


def _unknown(section: str, key: Any, near: str | None, keys: Sequence[str]) -> str:
    path = f"{section}.{key}" if section else str(key)
    question = f"; did you mean {near}?" if near else "."
    where = f"in {section}" if section else "at the top"
    return f"{path}: unknown key{question} Keys allowed {where}: {', '.join(keys)}"


def _nearest_path(path: str, siblings: Sequence[str], root: type[BaseModel]) -> str | None:
    """A key of that very name elsewhere in the same top section, or close in this one, or of that name anywhere."""
    parent, _, key = path.rpartition(".")
    everywhere = known_paths(root)
    same = [p for p in everywhere if p.rpartition(".")[2] == key]
    near_sibling = nearest(key, siblings)
    nearby = [p for p in same if p.partition(".")[0] == path.partition(".")[0]]
    if nearby:
        return nearest(path, nearby) or nearby[0]
    if near_sibling:
        return f"{parent}.{near_sibling}" if parent else near_sibling
    if same:
        return same[0]
    return nearest(path, everywhere)


def _section_class(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _dotted(location: Sequence[Any]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
