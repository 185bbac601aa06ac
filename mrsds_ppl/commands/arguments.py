"""Arguments of the command line: what their text means, and what is said of one that is misspelt."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mrsds_ppl.config.names import nearest


def absolute(text: str) -> str:
    """A path."""
    # A path typed in a shell is relative to the shell's folder, not to the configuration's.
    return str(Path(text).expanduser().absolute())


def rate(text: str) -> float:
    """A probability that is neither 0 nor 1."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a number between 0 and 1")
    return found


def file_name(text: str) -> str:
    """A name without folders."""
    if not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a file name without folders")
    return text


def sizes(text: str) -> int | list[int]:
    """A number, or one for each region."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a whole number, or one per region: 2,3,1") from None
    return found if "," in text else found[0]


def refuse_misspelt(
    argv: Sequence[str], parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]
) -> None:
    """Exit with status 2 and the nearest name. Argparse alone would read ``-datapth`` as ``-d atapth``."""
    if not argv or argv[0].startswith("-"):
        return
    if argv[0] not in commands:
        _suggest(parser, "command", argv[0], list(commands))
    command = commands[argv[0]]
    known = list(command._option_string_actions)
    for word in argv[1:]:
        option = word.partition("=")[0]
        if word == "--":
            return
        if word.startswith("--") or re.match(r"-[a-zA-Z]", word):
            attached = re.fullmatch(r"-[kd]=?[\d,]*|-v+", word)
            if option not in known and not attached:
                _suggest(command, "option", option, known)


def _suggest(parser: argparse.ArgumentParser, kind: str, word: str, known: list[str]) -> NoReturn:
    near = nearest(word, known)
    hint = f"did you mean {near}?" if near else f"allowed: {', '.join(known)}"
    parser.error(f"unknown {kind} {word}; {hint}")
