"""The parser of the command line: commands, their arguments and their help."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from mrsds_ppl import __version__
from mrsds_ppl.commands.arguments import absolute, file_name, rate, sizes, whole_numbers
from mrsds_ppl.config.names import GUIDE_NAMES, SIMULATORS

SEEDS = ("data_seed", "model_seed", "train_seed")


def make_parsers(
    functions: Mapping[str, Callable[[argparse.Namespace], None]],
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its commands by name.

    Args:
        functions: what runs each command, by its name.
    """
    parser = argparse.ArgumentParser(
        prog="mrsds",
        description="Multi-region switching dynamical systems: messages between brain regions, and when they change.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mrsds-ppl {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}
    for name, add_arguments, summary in (
        ("fit", _add_fit, "fit a model to a recording or a simulation and write its files"),
        ("sweep", _add_sweep, "fit several numbers of states and latents side by side, and name the smallest good one"),
        ("init", _add_init, "write a configuration that suits a recording, to be edited"),
        ("simulate", _add_simulate, "write simulated trials to a file that fit can read"),
        ("infer", _add_infer, "infer latents, states and messages of new trials under a fitted run"),
        ("report", _add_report, "write one self-contained HTML page about a fitted run"),
        ("edges", _add_edges, "say which messages of a fitted run are there"),
        ("compare", _add_compare, "compare runs of one recording and name the smallest that is good enough"),
        ("check", _add_check, "validate a configuration and its data; print what would be fitted"),
    ):
        command = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        add_arguments(command)
        command.add_argument("-v", "--verbose", action="store_true", help="show where in the program an error arose")
        command.set_defaults(run=functions[name], refuse=command.error)
        commands[name] = command
    return parser, commands


def _add_fit(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    _add_place(parser)
    _add_sizes(parser)
    _add_settings(parser)
    _add_restarts(parser)
    parser.add_argument("--gpu", "-gpu", metavar="I", type=int, help="number of the GPU; default: the first")
    _add_devices(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint of NAME")
    again.add_argument("--overwrite", action="store_true", help="replace a run of this name")


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    parser.add_argument(
        "-k",
        dest="grid_states",
        metavar="K",
        type=whole_numbers,
        required=True,
        help="numbers of states: 1-4, or 1,2,3",
    )
    parser.add_argument(
        "-d",
        dest="grid_sizes",
        metavar="D",
        type=whole_numbers,
        required=True,
        help="latents of each region: 2,4, or 2-5",
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=1, help="fits of each, from other seeds; default: 1")
    parser.add_argument("--folds", metavar="N", type=int, help="of a cross-validation; default: one split")
    parser.add_argument(
        "--scheduler", metavar="WHERE", default="local", help="local (default), slurm, or tcp://... of a Dask scheduler"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="fits side by side; default: cores of this machine")
    _add_place(parser)
    _add_settings(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a sweep of this name; default: go on with it")


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
    _add_devices(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="page to write; default: RUN_report.html")
    parser.add_argument("--quick", action="store_true", help="leave out the tests of messages, slow for many regions")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="conditions of the trials: CSV with the header trial,label"
    )
    _add_devices(parser)


def _add_edges(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--rate", metavar="Q", type=rate, default=0.1, help="false discovery rate; default: 0.1")
    _add_devices(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fitted", metavar="RUN", nargs="+", help="runs that differ in states, latents or networks")
    _add_devices(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    # Not "run", under which every command keeps its function.
    parser.add_argument("fitted", metavar="RUN", help="DIR/NAME, any file of the run, or a DIR that holds one run")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    _add_sizes(parser)
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


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--result-path", "-resultpath", metavar="DIR", type=Path, default=Path("results"), help="default: results"
    )
    parser.add_argument("--name", "-name", metavar="NAME", type=file_name, help="of the run; default: that of the file")


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", dest="num_states", metavar="K", type=int, help="discrete states")
    parser.add_argument(
        "-d", dest="latent_dims", metavar="D", type=sizes, help="latent dimensions of each region: 2, or 2,3,1"
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--guide", "-mtype", metavar="NAME", help=f"{', '.join(GUIDE_NAMES)}, or a published name")
    for seed in SEEDS:
        flags = ("--" + seed.replace("_", "-"), "-" + seed.replace("_", ""))
        parser.add_argument(*flags, metavar="I", type=int, help=f"sets training.{seed}")
    _add_set(parser, "any key of the configuration, such as training.num_steps=500; repeatable")


def _add_set(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help=summary)


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", metavar="N", type=int, help="spread trials over N devices of this machine")
