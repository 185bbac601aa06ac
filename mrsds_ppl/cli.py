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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrsds_ppl import __version__
from mrsds_ppl.backend.compiler_flags import choose_optimization_level
from mrsds_ppl.commands.arguments import absolute, file_name, rate, refuse_misspelt, sizes, sources
from mrsds_ppl.config.names import GUIDE_NAMES, SIMULATORS
from mrsds_ppl.errors import MrsdsError
from mrsds_ppl.train.interrupts import INTERRUPTED, answered

_SEEDS = ("data_seed", "model_seed", "train_seed")
_STOPPED_FIT = "stopped; the same command with --resume goes on from the last checkpoint, or from the beginning"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser, commands = make_parsers()
    refuse_misspelt(argv, parser, commands)
    args = parser.parse_args(argv)
    choose_optimization_level()
    stopped = _STOPPED_FIT if args.run is _fit else "stopped"
    try:
        with warnings.catch_warnings(), answered(_answer, last_words=stopped):
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


def _tell(message: Warning | str, *_: object, **__: object) -> None:
    """A warning without the line of code that gave it."""
    print(f"warning: {message}", file=sys.stderr)


def _answer(line: str) -> None:
    """What is said of a signal, to the log of a run as well."""
    print(line, file=sys.stderr, flush=True)
    logging.getLogger("mrsds_ppl").info(line)


def _fit(args: argparse.Namespace) -> None:
    path, recording = sources(args)
    config, trials = _load(path, recording, args)

    from mrsds_ppl.commands import fit as command

    # A recording may be a loader, file.py:function.
    named = [path or recording] if path or isinstance(recording, str) else recording or []
    own = "-".join(Path(str(one).partition(".py:")[0]).stem for one in named)
    command.fit(
        config,
        trials,
        name=own if args.name is None else args.name,
        result_path=args.result_path,
        resume=args.resume,
        overwrite=args.overwrite,
        gpu=args.gpu,
        log=_log,
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
    config, trials = _load(*sources(args), args)

    from mrsds_ppl.commands import fit as command

    _log(command.check(config, trials))


def _init(args: argparse.Namespace) -> None:
    from mrsds_ppl.commands import init as command
    from mrsds_ppl.config.loading import parse_assignment

    settings = dict(parse_assignment(text) for text in args.settings)
    command.init(args.recording, out=args.out, settings=settings, log=_log)


def _load(path: Path | None, recording: str | list[str] | None, args: argparse.Namespace) -> Any:
    """The configuration with what the command line says about it, and the trials where they had to be read for it.

    An option of its own wins over --set.
    """
    from mrsds_ppl.config.loading import load_config, parse_assignment

    overrides = dict(parse_assignment(text) for text in args.settings)
    options = {
        "model.num_states": args.num_states,
        "model.latent_sizes": args.latent_dims,
        "inference.guide": args.guide,
        "training.restarts": args.restarts,
        **{f"training.{seed}": getattr(args, seed) for seed in _SEEDS},
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


def make_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its commands by name."""
    parser = argparse.ArgumentParser(
        prog="mrsds",
        description="Multi-region switching dynamical systems: messages between brain regions, and when they change.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mrsds-ppl {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}
    for name, add_arguments, function, summary in (
        ("fit", _add_fit, _fit, "fit a model to a recording or a simulation and write its files"),
        ("init", _add_init, _init, "write a configuration that suits a recording, to be edited"),
        ("simulate", _add_simulate, _simulate, "write simulated trials to a file that fit can read"),
        ("infer", _add_infer, _infer, "infer latents, states and messages of new trials under a fitted run"),
        ("report", _add_report, _report, "write one self-contained HTML page about a fitted run"),
        ("edges", _add_edges, _edges, "say which messages of a fitted run are there"),
        ("compare", _add_compare, _compare, "compare runs of one recording and name the smallest that is good enough"),
        ("check", _add_check, _check, "validate a configuration and its data; print what would be fitted"),
    ):
        command = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        add_arguments(command)
        command.add_argument("-v", "--verbose", action="store_true", help="show where in the program an error arose")
        command.set_defaults(run=function, refuse=command.error)
        commands[name] = command
    return parser, commands


def _add_fit(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    parser.add_argument(
        "--result-path", "-resultpath", metavar="DIR", type=Path, default=Path("results"), help="default: results"
    )
    parser.add_argument("--name", "-name", metavar="NAME", type=file_name, help="of the run; default: that of the file")
    _add_settings(parser)
    _add_restarts(parser)
    parser.add_argument("--gpu", "-gpu", metavar="I", type=int, help="number of the GPU; default: the first")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint of NAME")
    again.add_argument("--overwrite", action="store_true", help="replace a run of this name")


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", metavar="DATA", type=absolute, help="recording, or file.py:function")
    parser.add_argument("-o", "--out", metavar="CONFIG", type=Path, help="file to write; default: print it")
    _add_set(parser, "how the recording is read, such as data.bin_width=0.02; repeatable")


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("simulator", choices=SIMULATORS, help="one of %(choices)s", metavar="SIMULATOR")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("--trials", metavar="N", type=int, help="number of trials")
    parser.add_argument("--seed", metavar="I", type=int, default=0, help="default: 0")
    _add_set(parser, "argument of the simulator, such as observation_noise=0.3")


def _add_infer(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("data", metavar="DATA", help="trials: .mat, .npz, .nc, .zarr, .nwb, or file.py:function")
    parser.add_argument(
        "--out", metavar="PREFIX", type=Path, help="files: PREFIX_posterior.nc, PREFIX_latents.mat; default: RUN-DATA"
    )
    parser.add_argument("--draws", metavar="N", type=int, help="draws of each trial; default: those of the run")
    parser.add_argument("--seed", metavar="I", type=int, default=0, help="default: 0")
    parser.add_argument("--new-neurons", action="store_true", help="of a session with other neurons")


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="page to write; default: RUN_report.html")
    parser.add_argument("--quick", action="store_true", help="leave out the tests of messages, slow for many regions")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="conditions of the trials: CSV with the header trial,label"
    )


def _add_edges(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--rate", metavar="Q", type=rate, default=0.1, help="false discovery rate; default: 0.1")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fitted", metavar="RUN", nargs="+", help="runs that differ in states, latents or networks")


def _add_run(parser: argparse.ArgumentParser) -> None:
    # Not "run", under which every command keeps its function.
    parser.add_argument("fitted", metavar="RUN", help="DIR/NAME, any file of the run, or a DIR that holds one run")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    _add_settings(parser)
    _add_restarts(parser)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="CONFIG", nargs="?", help="YAML file; without one DATA comes first")
    parser.add_argument(
        "recording", metavar="DATA", nargs="?", type=absolute, help="recording: .mat, .npz, .nc, .zarr, .nwb, ..."
    )
    said = "the same as DATA; repeatable, for sessions with other neurons each"
    parser.add_argument("--data-path", "-datapath", metavar="FILE", type=absolute, action="append", help=said)
    parser.add_argument("-configpath", metavar="FILE", type=Path, help="the same as CONFIG")


def _add_restarts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--restarts", metavar="N", type=int, help="seeds trained side by side; the best one is kept")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", dest="num_states", metavar="K", type=int, help="discrete states")
    parser.add_argument(
        "-d", dest="latent_dims", metavar="D", type=sizes, help="latent dimensions of each region: 2, or 2,3,1"
    )
    parser.add_argument("--guide", "-mtype", metavar="NAME", help=f"{', '.join(GUIDE_NAMES)}, or a published name")
    for seed in _SEEDS:
        flags = ("--" + seed.replace("_", "-"), "-" + seed.replace("_", ""))
        parser.add_argument(*flags, metavar="I", type=int, help=f"sets training.{seed}")
    _add_set(parser, "any key of the configuration, such as training.num_steps=500; repeatable")


def _add_set(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help=summary)
