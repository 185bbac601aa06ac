"""The command line up to the call of the run: parsing, refusals, exit status, speed of help."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mrsds_ppl
import mrsds_ppl.commands
from mrsds_ppl.cli import main
from mrsds_ppl.errors import DataError, ScoreError
from mrsds_ppl.train.settings import Seeds


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {num_steps: 5}\n")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands where the run does, which is not what is tested here; ``calls`` is what the commands hand to it."""
    calls: list[tuple[str, tuple, dict[str, Any]]] = []

    def recorder(name: str) -> Callable:
        return lambda *args, **options: calls.append((name, args, options))

    stand_in = SimpleNamespace(fit=recorder("fit"), simulate=recorder("simulate"), check=recorder("check"), calls=calls)
    for name in ("check", "fit", "simulate"):
        monkeypatch.setitem(sys.modules, f"mrsds_ppl.commands.{name}", stand_in)
        monkeypatch.setattr(mrsds_ppl.commands, name, stand_in, raising=False)
    return stand_in


def test_fit_has_defaults(run, config_file):
    assert main(["fit", str(config_file)]) == 0
    [(name, (config, trials), options)] = run.calls
    assert (name, trials) == ("fit", None)
    assert config.training.optimiser.num_steps == 5
    assert options.pop("log")
    assert options == {
        "name": "mine",
        "result_path": Path("results"),
        "resume": False,
        "overwrite": False,
        "gpu": None,
    }


def test_fit_options_reach_the_configuration(run, config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "--data-path rec.mat --result-path out --name first -k 3 -d 2,1 --guide mean_field --data-seed 1"
    options += " --model-seed 2 --train-seed 3 --gpu 0 --set training.num_steps=7 --set model.ux=false --resume"
    assert main(["fit", str(config_file), *options.split()]) == 0
    [(_, (config, _), given)] = run.calls
    assert config.data.data_path == str(tmp_path / "rec.mat")
    assert (config.model.num_states, config.model.latent_sizes, config.model.ux) == (3, (2, 1), False)
    assert config.inference.guide == "mean_field"
    training = config.training
    assert training.optimiser.num_steps == 7
    assert training.seeds == Seeds(data=1, model=2, train=3)
    assert (given["name"], given["result_path"], given["gpu"], given["resume"]) == ("first", Path("out"), 0, True)


def test_published_command_line_is_accepted(run, config_file):
    published = f"-datapath /mydata -resultpath /myresults -configpath {config_file} -name myrun-seeds0-0-0 -gpu 0"
    published += " -k 1 -d 2 -mtype mrsds -dataseed 4 -modelseed 5 -trainseed 6"
    assert main(["fit", *published.split()]) == 0
    [(_, (config, _), given)] = run.calls
    assert (config.data.data_path, given["result_path"], given["gpu"]) == ("/mydata", Path("/myresults"), 0)
    assert given["name"] == "myrun-seeds0-0-0"
    assert (config.model.num_states, config.model.latent_sizes, config.inference.guide) == (1, 2, "mean_field")
    assert config.training.seeds == Seeds(data=4, model=5, train=6)


def test_option_of_its_own_wins_over_set(run, config_file):
    assert main(["fit", str(config_file), "-k3", "--set", "model.num_states=2"]) == 0
    assert run.calls[0][1][0].model.num_states == 3


def test_simulate_hands_over_its_arguments(run):
    given = ["--trials", "20", "--seed", "3", "--set", "observation_noise=0.1"]
    assert main(["simulate", "lotka-volterra", "out.npz", *given]) == 0
    [(name, args, options)] = run.calls
    options.pop("log")
    assert (name, args) == ("simulate", ("lotka-volterra", Path("out.npz")))
    assert options == {"seed": 3, "options": {"observation_noise": 0.1, "num_trials": 20}}


def test_check_prints_what_would_be_fitted(run, config_file, capsys):
    run.check = lambda config, _: f"{config.model.num_states} states"
    assert main(["check", str(config_file), "rec.mat", "-k", "4"]) == 0
    assert capsys.readouterr().out == "4 states\n"


@pytest.mark.parametrize(
    "given",
    [
        "mine.yaml rec.mat",
        "mine.yaml --data-path rec.mat",
        "mine.yaml -datapath rec.mat --restarts 3",
        "rec.mat -configpath mine.yaml",
        "-configpath mine.yaml --data-path rec.mat",
        "mine rec.mat",
        "mine --data-path rec.mat",
    ],
)
def test_fit_and_check_take_configuration_and_recording_alike(run, config_file, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text(config_file.read_text())
    run.check = lambda *found: run.calls.append(("check", found, {})) or ""
    assert main(["check", *given.split()]) == 0
    assert main(["fit", *given.split()]) == 0
    for _, (config, trials), _ in run.calls:
        assert (config.data.data_source, config.data.data_path) == ("mydata", str(tmp_path / "rec.mat"))
        assert config.training.optimiser.num_steps == 5
        assert config.training.optimiser.restarts == (3 if "--restarts" in given else 1)
        assert trials is None
    assert [name for name, _, _ in run.calls] == ["check", "fit"]
    assert run.calls[1][2]["name"] == "mine"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-k", "0"], "model.num_states: found 0"),
        (["-k", "-1"], "model.num_states: found -1"),
        (["-d", "0"], "model.latent_sizes: found 0"),
        (["--guide", "mean_feild"], "did you mean mean_field?"),
        (["--set", "training.num_steps"], "KEY=VALUE"),
        (["--set", "training.num_stps=3"], "did you mean training.num_steps?"),
        (["--set", "training.num_steps=-3"], "training.num_steps: found -3"),
        (["--data-seed", "-1"], "training.data_seed: found -1"),
    ],
)
def test_wrong_value_is_one_block_and_exit_2(run, config_file, options, part, capsys):
    assert main(["fit", str(config_file), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert part in err
    assert "Traceback" not in err
    assert run.calls == []


def test_missing_configuration_is_exit_2(capsys):
    assert main(["fit", "absent.yaml"]) == 2
    assert capsys.readouterr().err == "error: absent.yaml: no such configuration file\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["fti", "a.yaml"], "unknown command fti; did you mean fit?"),
        (["fit", "a.yaml", "--nmae", "x"], "unknown option --nmae; did you mean --name?"),
        (["fit", "a.yaml", "-datapth", "x"], "unknown option -datapth; did you mean -datapath?"),
        (["fit", "a.yaml", "--train-sed=3"], "unknown option --train-sed; did you mean --train-seed?"),
        (["fit", "a.yaml", "-d", "two"], "found 'two'; allowed: a whole number"),
        (["fit", "a.yaml", "--name", "a/b"], "a file name without folders"),
        (["fit"], "neither CONFIG nor DATA"),
        (["check", "-k", "3"], "neither CONFIG nor DATA"),
        (["check", "a.yaml", "rec.mat", "--data-path", "other.mat"], "give the recording once"),
        (["fit", "-configpath", "a.yaml", "rec.mat", "other.mat"], "give the recording once"),
        (["fit", "a.yaml", "-configpath", "b.yaml"], "give the configuration file once"),
        (["simulate", "lotka", "out.npz"], "lotka-volterra"),
        ([], "COMMAND"),
    ],
)
def test_misspelt_command_line_is_exit_2(arguments, part, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert part in capsys.readouterr().err


def test_error_of_the_run_is_exit_2(run, config_file, capsys):
    def fit(*args: object, **options: object) -> None:
        raise DataError("rec.mat: no key ys")

    run.fit = fit
    assert main(["fit", str(config_file)]) == 2
    assert capsys.readouterr().err == "error: rec.mat: no key ys\n"
    assert main(["fit", str(config_file), "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ScoreError("out/mine: scores are not finite"), 1, "out/mine: scores are not finite"),
        (
            OSError(28, "No space left on device", "out/mine-logs"),
            2,
            "[Errno 28] No space left on device: 'out/mine-logs'",
        ),
    ],
)
def test_scores_not_finite_and_a_full_disk_are_one_sentence_each(run, config_file, capsys, error, status, said):
    def fit(*args: object, **options: object) -> None:
        raise error

    run.fit = fit
    assert main(["fit", str(config_file)]) == status
    assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [((), "stopped; the same command with --resume "), (("stopped at step 40; --resume goes on",), None)],
)
def test_interrupt_is_one_line_and_exit_130(run, config_file, capsys, said, shown):
    def fit(*args: object, **options: object) -> None:
        raise KeyboardInterrupt(*said)

    run.fit = fit
    assert main(["fit", str(config_file)]) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(shown or f"{said[0]}\n")


def test_help_imports_nothing_heavy_and_is_fast():
    heavy = "{'jax', 'numpy', 'pydantic', 'yaml', 'numpyro', 'xarray'}"
    code = (
        "import sys; from mrsds_ppl.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert done.stdout.endswith("heavy: []\n")
    assert "simulate" in done.stdout
    assert min(seconds) < 0.3


def test_module_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "mrsds_ppl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mrsds-ppl {mrsds_ppl.__version__}\n"


def test_command_ends_without_a_word_where_nobody_reads_on(tmp_path):
    (tmp_path / "toy.yaml").write_text(
        "data: {data_source: lotka-volterra, simulation: {num_trials: 10, num_bins: 20}}\n"
    )
    command = [sys.executable, "-m", "mrsds_ppl", "check", str(tmp_path / "toy.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141
