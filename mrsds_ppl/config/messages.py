"""Pydantic's findings as messages for the person who wrote a configuration, in that person's spelling."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ValidationError

from mrsds_ppl.config.names import hint, nearest
from mrsds_ppl.config.published import RENAMED, Path, dotted
from mrsds_ppl.errors import ConfigError

__all__ = ["Spelling", "explain", "known_paths", "reject_unknown", "without_empty_sections"]

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
    "dataclass_type": "a mapping of keys to values",
    "too_short": "at least {min_length} entries",
}


class Spelling(NamedTuple):
    """How the user wrote each key, and how a path of theirs is shown."""

    written: Mapping[Path, Path]
    label: Callable[[Path], str] = dotted

    def of(self, path: Path) -> Path:
        """A path of today as it was written: that of a value, or of the section that values were written in."""
        for known, written in self.written.items():
            if known[: len(path)] == path and known[len(path) :] == written[len(written) - len(known) + len(path) :]:
                return written[: len(written) - len(known) + len(path)]
        return path


def explain(error: ValidationError, root: type[BaseModel], spelling: Spelling) -> list[str]:
    """One line per problem: the key as it was written, what was found, what is allowed and the nearest known name."""
    return [_explain_one(problem, root, spelling) for problem in error.errors()]


def reject_unknown(path: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Raise ConfigError for the first of ``given`` that is not among the keys ``allowed`` under the YAML path."""
    for key in given:
        if key not in allowed:
            near = nearest(str(key), allowed)
            question = f"; did you mean {path}.{near}?" if near else "."
            raise ConfigError(f"{path}.{key}: unknown key{question} Keys allowed in {path}: {', '.join(allowed)}")


def show(value: object) -> str:
    """A value as YAML writes it, cut short."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def known_paths(root: type, above: str = "") -> list[str]:
    """Full path of every key and section."""
    paths = []
    for name, kind in _keys(root):
        paths.append(above + name)
        if section := _section_class(kind):
            paths += known_paths(section, f"{above}{name}.")
    return paths


def without_empty_sections(values: object, root: type) -> object:
    """The mapping without sections that have nothing under them, which are YAML's null."""
    if not isinstance(values, dict):
        return values
    kept, kinds = {}, dict(_keys(root))
    for name, value in values.items():
        section = kinds.get(name)
        if section is not None and isinstance(section, type) and is_dataclass(section):
            if value is None:
                continue
            value = without_empty_sections(value, section)
        kept[name] = value
    return kept


def _keys(section: type) -> Iterator[tuple[str, Any]]:
    if is_dataclass(section):
        hints = get_type_hints(section)
        yield from ((field.name, hints[field.name]) for field in fields(section))
    elif issubclass(section, BaseModel):
        yield from ((name, field.annotation) for name, field in section.model_fields.items())


def _explain_one(problem: Mapping[str, Any], root: type[BaseModel], spelling: Spelling) -> str:
    location, kind, context = problem["loc"], problem["type"], problem.get("ctx", {})
    names, index = tuple(p for p in location if isinstance(p, str)), [p for p in location if isinstance(p, int)]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown(spelling.of(names), root, spelling.label)
    if kind == "value_error":
        message = str(context["error"])
        # A section's own check begins with the key below it.
        below = re.match(r"([a-z_.]+): ", message) if isinstance(problem["input"], dict | BaseModel) else None
        if below is not None:
            names += tuple(below[1].split("."))
            message = message.removeprefix(below[0])
        else:
            message = f"found {show(problem['input'])}; {message}"
    else:
        message = f"found {show(problem['input'])}; {_allowed(problem, kind, context)}"
    return f"{spelling.label(spelling.of(names))}{''.join(f'[{i}]' for i in index)}: {message}"


def _allowed(problem: Mapping[str, Any], kind: str, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        listed = ", ".join([*names, "null"] if "None" in context["expected"] else names)
        return f"allowed: {listed}{hint(str(problem['input']), names)}"
    for beginning, allowed in _ALLOWED.items():
        if kind.startswith(beginning):
            return f"allowed: {allowed.format(**context)}"
    return str(problem["msg"])


def _unknown(path: Path, root: type[BaseModel], label: Callable[[Path], str]) -> str:
    parent = path[:-1]
    accepted = _accepted(root)
    siblings = [one[-1] for one in accepted if one[:-1] == parent]
    near = _nearest_path(path, siblings, accepted)
    # A sibling's name is enough where keys are no dotted paths.
    short = near is not None and near[:-1] == parent and label is not dotted
    question = "." if near is None else f"; did you mean {near[-1] if short else label(near)}?"
    where = f"in {label(parent)}" if parent else "at the top"
    return f"{label(path)}: unknown key{question} Keys allowed {where}: {', '.join(_listed(parent, siblings, root))}"


def _listed(parent: Path, siblings: Sequence[str], root: type) -> list[str]:
    """Keys of a section, those of the sections in it in brackets."""
    section: type | None = root
    for name in parent:
        section = _section_class(dict(_keys(section)).get(name)) if section else None
    if section is None or not parent:
        return list(dict.fromkeys(siblings)) if parent else [name for name, _ in _keys(root)]
    listed = []
    for name, kind in _keys(section):
        inner = _section_class(kind)
        listed.append(f"{name} ({', '.join(key for key, _ in _keys(inner))})" if inner else name)
    return listed


def _accepted(root: type[BaseModel]) -> list[Path]:
    """Every path that is read: those of today, and other spellings of them."""
    today = [tuple(path.split(".")) for path in known_paths(root)]
    other = []
    for old, new in RENAMED.items():
        before, now = tuple(old.split(".")), tuple(new.split("."))
        other += [before + path[len(now) :] for path in today if path[: len(now)] == now]
        other += [before[:-1]] if before[:-1] not in today else []
    return list(dict.fromkeys([*today, *other]))


def _nearest_path(path: Path, siblings: Sequence[str], accepted: Sequence[Path]) -> Path | None:
    """A key of that very name elsewhere in the same top section, or close in this one, or of that name anywhere."""
    same = [one for one in accepted if one[-1] == path[-1]]
    nearby = [one for one in same if one[0] == path[0]]
    by_text = {dotted(one): one for one in (nearby or same or accepted)}
    if nearby:
        return by_text.get(nearest(dotted(path), by_text) or "", nearby[0])
    if near := nearest(path[-1], siblings):
        return (*path[:-1], near)
    return same[0] if same else by_text.get(nearest(dotted(path), by_text) or "")


def _section_class(annotation: object) -> type | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and (is_dataclass(candidate) or issubclass(candidate, BaseModel)):
            return candidate
    return None
