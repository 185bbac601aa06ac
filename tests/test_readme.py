"""What the README says is run: its Python blocks, its commands, its links."""

import re
import shlex
import subprocess
import sysconfig
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest

from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.cli import COMMANDS
from mrsds_ppl.commands.parser import make_parsers

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PROGRAM = ROOT / "docs" / "numpyro.md"


def blocks(path, language):
    """(line number, text) of every fenced block of a language, in order."""
    text = path.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in found]


def run_blocks(path):
    """Run a page's Python blocks as one program, whose tracebacks name the page's lines; return its names."""
    names = {"__name__": "__main__"}
    for line, text in blocks(path, "python"):
        # The program is the repository's own page.
        exec(compile("\n" * line + text, str(path), "exec"), names)
    return names


def commands():
    """Each command of the README's shell blocks, one for each program that it calls."""
    lines = [line for _, text in blocks(README, "sh") for line in text.splitlines()]
    return [shlex.split(part) for line in lines for part in line.split(" && ")]


@pytest.mark.slow
@pytest.mark.longest
def test_python_blocks_of_the_readme_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = run_blocks(README)
    assert list(tmp_path.iterdir()) == []
    fit, trials = names["fit"], names["trials"]
    # The latents are found up to scale and offset even in so short a run, and so are the states.
    assert min(align_latents(trials.x, fit.latents.values, trials.lengths, [1, 1]).r2) > 0.9
    assert match_states(trials.z, fit.states.values, trials.lengths).accuracy > 0.95
    assert names["recording"].lengths.tolist() == [40, 55, 48]
    assert not names["recording"].observed[1, 10:20, 3].any()


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_python_blocks_of_the_page_on_the_program_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(PROGRAM)
    assert list(tmp_path.iterdir()) == []
    losses = names["result"].losses
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    truth, x = names["trials"].x.reshape(-1, 2), np.asarray(names["x"].mean(0)).reshape(-1, 2)
    for region in range(2):
        assert abs(np.corrcoef(truth[:, region], x[:, region])[0, 1]) > 0.9
    np.testing.assert_allclose(names["state_probabilities"].sum(1), 1.0, rtol=1e-4)
    assert names["messages"].cross.shape == (2, 2, 2, 16 * 60, 1)
    other = names["other"].losses
    assert other[-1] < other[0]
    assert names["spiking"].num_latents == 5


def test_the_program_is_fitted_by_a_plain_numpyro_script():
    _, first = blocks(PROGRAM, "python")[0]
    assert "from numpyro.infer import SVI" in first
    assert re.search(r"SVI\(model, guide, optimizer, loss=MarkovELBO\(\)\)\.run\(", first)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_python_blocks_of_the_page_on_guides_run_in_order():
    names = run_blocks(ROOT / "docs" / "guides.md")
    assert names["result"].losses[-1] < names["result"].losses[0]
    assert "raw_scale" in names["result"].params


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_python_blocks_of_the_page_on_enumeration_run_in_order():
    names = run_blocks(ROOT / "docs" / "enumeration.md")
    assert np.isfinite(names["density"])
    assert names["result"].losses[-1] < names["result"].losses[0]
    assert names["first"].shape == (2, 4)
    assert names["later"].shape == (2, 19, 4)
    assert names["found"].losses[-1] < names["found"].losses[0]


def test_two_complete_commands_install_then_run_the_program_and_the_tests():
    complete = [text.strip() for _, text in blocks(README, "sh") if "venv" in text]
    assert len(complete) == 2
    for command in complete:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert "\n" not in command
    assert complete[0].endswith("&& .venv/bin/mrsds fit configs/toy-config.yaml")
    assert complete[1].endswith("&& .venv/bin/pytest")


def test_continuous_integration_runs_the_test_command_of_the_readme_to_the_letter():
    shown = subprocess.run([ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True).stdout
    assert shown in [text for _, text in blocks(README, "sh")]
    assert ".venv/bin/pytest" in shown


def test_programs_extras_and_options_that_the_readme_names_exist():
    scripts = Path(sysconfig.get_path("scripts"))
    extras = metadata("mrsds-ppl").get_all("Provides-Extra")
    assert set(re.findall(r"(?:\.|mrsds-ppl)\[(\w+)\]'", README.read_text())) == {"cuda", "docs", "test"} <= set(extras)
    seen = set()
    for program, *arguments in commands():
        name = Path(program).name
        seen.add(name)
        if name in ("mrsds", "pytest"):
            assert (scripts / name).is_file()
        if name == "mrsds":
            assert callable(make_parsers(COMMANDS)[0].parse_args(arguments).run)
    assert seen == {"python3", "pip", "mrsds", "pytest"}


def test_files_that_the_readme_names_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README.read_text()) if "://" not in link]
    configs = re.findall(r"configs/[\w-]+\.yaml", README.read_text())
    assert {"docs/toy-fit.png", "CITATION.cff"} < set(links)
    assert [name for name in (*links, *configs) if not (ROOT / name).exists()] == []
