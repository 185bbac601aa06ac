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


def whole_numbers(text: str) -> list[int]:
    """Whole numbers, such as 1,2,4, or all from one to another, such as 1-4."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        found = []
    if not found:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: whole numbers, such as 1,2,4, or a range: 1-4")
    return found


def is_configuration(text: str) -> bool:
    """Whether a path is one of a configuration by its ending; any other is read as a recording."""
    return Path(text).suffix.lower() in (".yaml", ".yml")


def sources(args: argparse.Namespace) -> tuple[Path | None, str | list[str] | None]:
    """The configuration and the recording, or recordings, that a command line names; one of the two may be absent.

    Exits with status 2 where one is given twice, or neither.
    """
    configs = [path for path in (args.configpath,) if path is not None]
    several = args.data_path or []
    recordings = [path for path in (args.recording, *several) if path is not None]
    if args.first is not None:
        # Beside a recording it can be nothing but the configuration, whatever its name.
        if is_configuration(args.first) or (recordings and not configs):
            configs.append(Path(args.first))
        else:
            recordings.append(absolute(args.first))
    if len(configs) > 1:
        args.refuse("found CONFIG and -configpath; give the configuration file once")
    if len(recordings) > max(len(several), 1):
        args.refuse("found DATA and --data-path; give the recording once, or several sessions each with --data-path")
    if len(recordings) > 1 and any(".py:" in path for path in recordings):
        args.refuse("found a function among several recordings; join sessions in it, with mrsds_ppl.join")
    if not configs and not recordings:
        args.refuse("found neither CONFIG nor DATA; give a configuration file (.yaml), a recording, or both")
    return (configs[0] if configs else None), (recordings if len(recordings) > 1 else next(iter(recordings), None))


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
            attached = re.fullmatch(r"-[kd]=?[\d,-]*|-v+", word)
            if option not in known and not attached:
                _suggest(command, "option", option, known)


def _suggest(parser: argparse.ArgumentParser, kind: str, word: str, known: list[str]) -> NoReturn:
    near = nearest(word, known)
    hint = f"did you mean {near}?" if near else f"allowed: {', '.join(known)}"
    parser.error(f"unknown {kind} {word}; {hint}")
