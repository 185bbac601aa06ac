"""The ``mrsds`` command: parses, calls :mod:`mrsds_ppl.commands.fit`, prints.

Exit status: 0 done; 1 fitted, but a score is not finite; 2 a mistake that the user can mend, told in one block; 130
interrupted; 141 nobody reads on, as where the output goes to ``head``. The command functions import what they need
themselves, the run last, so that help and refusals answer at once.
"""

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mrsds_ppl.backend.compiler_flags import choose_optimization_level
from mrsds_ppl.commands.arguments import refuse_misspelt, sources
from mrsds_ppl.commands.parser import SEEDS, make_parsers
from mrsds_ppl.errors import MrsdsError
from mrsds_ppl.train.interrupts import INTERRUPTED, answered

_STOPPED_FIT = "stopped; the same command with --resume goes on from the last checkpoint, or from the beginning"
_STOPPED_SWEEP = "stopped; the same command goes on with the cells that are not done"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser, commands = make_parsers(COMMANDS)
    refuse_misspelt(argv, parser, commands)
    args = parser.parse_args(argv)
    choose_optimization_level()
    stopped = {_fit: _STOPPED_FIT, _sweep: _STOPPED_SWEEP}.get(args.run, "stopped")
    try:
        with warnings.catch_warnings(), answered(_answer, last_words=stopped), _devices(args):
            warnings.showwarning = _tell
            args.run(args)
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or stopped, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What Python would still write at its end has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MrsdsError, OSError) as error:  # a full disk, a folder that cannot be written
        if args.verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.status if isinstance(error, MrsdsError) else 2
    return 0


def _devices(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Within it trials are spread over as many devices as the command line asks for."""
    if getattr(args, "devices", None) is None:
        return nullcontext()
    from mrsds_ppl.backend.sharding import on_devices

    return on_devices(args.devices)


def _tell(message: Warning | str, *_: object, **__: object) -> None:
    """A warning without the line of code that gave it."""
    print(f"warning: {message}", file=sys.stderr)


def _answer(line: str) -> None:
    """What is said of a signal, to the log of a run as well."""
    print(line, file=sys.stderr, flush=True)
    logging.getLogger("mrsds_ppl").info(line)


def _fit(args: argparse.Namespace) -> None:
    path, recording = sources(args)
    config, trials = _load(path, recording, args, _of_one_fit(args))

    from mrsds_ppl.commands import fit as command

    command.fit(
        config,
        trials,
        name=_name(path, recording, args),
        result_path=args.result_path,
        resume=args.resume,
        overwrite=args.overwrite,
        gpu=args.gpu,
        log=_log,
    )


def _sweep(args: argparse.Namespace) -> None:
    path, recording = sources(args)
    config, trials = _load(path, recording, args)

    from mrsds_ppl.commands import sweep as command
    from mrsds_ppl.sweeps.files import SweepPaths

    paths = SweepPaths(args.result_path, _name(path, recording, args))
    options = {"seeds": args.seeds, "folds": args.folds, "scheduler": args.scheduler, "workers": args.workers}
    command.sweep(
        config, trials, args.grid_states, args.grid_sizes, paths, overwrite=args.overwrite, log=_log, **options
    )


def _simulate(args: argparse.Namespace) -> None:
    from mrsds_ppl.config.loading import parse_assignment

    options = dict(parse_assignment(text) for text in args.settings)
    if args.trials is not None:
        options["num_trials"] = args.trials

    from mrsds_ppl.commands import simulate as command

    command.simulate(args.simulator, args.out, seed=args.seed, options=options, log=_log)


def _infer(args: argparse.Namespace) -> None:
    from mrsds_ppl.commands import infer as command

    options = {"out": args.out, "draws": args.draws, "seed": args.seed, "new_neurons": args.new_neurons}
    command.infer(args.fitted, args.data, log=_log, **options)


def _report(args: argparse.Namespace) -> None:
    import matplotlib as mpl

    # Figures go to the page alone; other backends would open windows.
    mpl.use("agg")

    from mrsds_ppl.commands import report as command

    command.report(args.fitted, out=args.out, labels=args.labels, quick=args.quick, log=_log)


def _edges(args: argparse.Namespace) -> None:
    from mrsds_ppl.commands import edges as command

    command.edges(args.fitted, rate=args.rate, log=_log)


def _compare(args: argparse.Namespace) -> None:
    from mrsds_ppl.commands import compare as command

    command.compare(args.fitted, log=_log)


def _check(args: argparse.Namespace) -> None:
    config, trials = _load(*sources(args), args, _of_one_fit(args))

    from mrsds_ppl.commands import check as command

    _log(command.check(config, trials))


def _init(args: argparse.Namespace) -> None:
    from mrsds_ppl.commands import init as command
    from mrsds_ppl.config.loading import parse_assignment

    settings = dict(parse_assignment(text) for text in args.settings)
    command.init(args.recording, out=args.out, settings=settings, log=_log)


def _of_one_fit(args: argparse.Namespace) -> dict[str, object]:
    """What options say that a sweep does not have, or reads otherwise."""
    return {
        "model.num_states": args.num_states,
        "model.latent_sizes": args.latent_dims,
        "training.restarts": args.restarts,
    }


def _name(path: Path | None, recording: str | list[str] | None, args: argparse.Namespace) -> str:
    """Of the files: as asked for, or that of the configuration or of the recordings."""
    # A recording may be a loader, file.py:function.
    named = [path or recording] if path or isinstance(recording, str) else recording or []
    own = "-".join(Path(str(one).partition(".py:")[0]).stem for one in named)
    return own if args.name is None else args.name


def _load(
    path: Path | None,
    recording: str | list[str] | None,
    args: argparse.Namespace,
    more: Mapping[str, object] | None = None,
) -> Any:
    """The configuration with what the command line says about it, and the trials where they had to be read for it.

    An option of its own, and what is in ``more``, wins over --set.
    """
    from mrsds_ppl.config.loading import load_config, parse_assignment

    overrides = dict(parse_assignment(text) for text in args.settings)
    options = {
        "inference.guide": args.guide,
        **{f"training.{seed}": getattr(args, seed) for seed in SEEDS},
        **(more or {}),
    }
    overrides.update({key: value for key, value in options.items() if value is not None})
    if recording is not None:
        loader = isinstance(recording, str) and ".py:" in recording
        overrides |= {"data.data_source" if loader else "data.data_path": recording}
    if path is not None:
        return load_config(path, overrides), None

    from mrsds_ppl.commands.init import suited

    return suited(overrides)


def _log(line: str) -> None:
    print(line, flush=True)


COMMANDS = {
    "fit": _fit,
    "sweep": _sweep,
    "init": _init,
    "simulate": _simulate,
    "infer": _infer,
    "report": _report,
    "edges": _edges,
    "compare": _compare,
    "check": _check,
}
