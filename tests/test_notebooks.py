"""The notebooks: clean as committed, and run from the first cell to the last with a few steps of training each."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NAMES = ("quickstart", "messages_switching", "guides", "choosing_k_and_d", "v1v2", "messages_structured")
SHARED = Path(os.environ.get("MRSDS_SHARED", ROOT / "../shared")).resolve()
RECORDING = SHARED / "data/v1v2_session143_stimulus1.mat"
STEPS = 8  # of training; below 100 the notebooks make their data tiny as well
KERNEL = "mrsds-notebook-test"

# In a process of its own: event loops and sockets of a kernel's client warn as they are collected, which the tests'
# strictness about warnings would blame on the test that happens to run then.
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

path, folder, kernel = sys.argv[1:]
notebook = nbformat.read(path, as_version=4)
nbformat.validate(notebook)
client = NotebookClient(notebook, kernel_name=kernel, timeout=300, resources={"metadata": {"path": folder}})
client.execute()
nbformat.write(notebook, path)
"""


def cells_of(path, kind):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables for the kernels: this Python under a name of its own, one compilation cache, fast compilation."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "kernels" / KERNEL).mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": KERNEL, "language": "python"}
    (folder / "kernels" / KERNEL / "kernel.json").write_text(json.dumps(spec))
    # A backend that the tests chose would keep figures out of the notebooks.
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return inherited | {
        "JUPYTER_PATH": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "MRSDS_NOTEBOOK_STEPS": str(STEPS),
        "MRSDS_SHARED": str(SHARED),
    }


def execute(name, environment, folder):
    """Run a copy of a notebook in an empty folder; return the finished process and the copy."""
    copy, work = folder / f"{name}.ipynb", folder / "work"
    work.mkdir()
    copy.write_bytes((FOLDER / f"{name}.ipynb").read_bytes())
    command = [sys.executable, "-c", EXECUTE, str(copy), str(work), KERNEL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done, copy


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_and_draws(name, environment, tmp_path):
    if name == "v1v2" and not RECORDING.is_file():
        pytest.skip(f"no recording at {RECORDING}; set MRSDS_SHARED to the folder that holds data/")
    done, copy = execute(name, environment, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    outputs = [output for cell in cells_of(copy, "code") for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert list((tmp_path / "work").iterdir()) == []  # results go to a temporary folder


@pytest.mark.slow
@pytest.mark.nightly
def test_notebook_of_the_recordings_says_that_they_are_not_there(environment, tmp_path):
    done, _ = execute("v1v2", environment | {"MRSDS_SHARED": str(tmp_path / "nowhere")}, tmp_path)
    assert done.returncode != 0
    assert "The recordings of V1 and V2 are not at" in done.stderr
    assert "Set the environment variable MRSDS_SHARED" in done.stderr


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


def imported(code):
    """Top-level packages that cells import, those of numbers and figures left out."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return {name for name in found if name.split(".")[0] not in ("numpy", "matplotlib")}


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_committed_with_its_outputs_and_small_and_imports_little(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 500_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    cells = cells_of(path, "code")
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    # Warnings name the folders of the machine that they were raised on.
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert "MRSDS_NOTEBOOK_STEPS" in code
    # Beside the package itself: the operating system's variables, and two more.
    assert len(imported(code) - {"os"}) <= 3, imported(code)
