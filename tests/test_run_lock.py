"""Two commands never write one run, and what cannot be written is said in one sentence."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mrsds_ppl.backend import device
from mrsds_ppl.errors import RunError
from mrsds_ppl.storage import lock as lock_module
from mrsds_ppl.storage.atomic import write_text
from mrsds_ppl.storage.lock import locked
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.storage.runlog import run_log

HOLD = """
import sys
from pathlib import Path
from mrsds_ppl.storage.lock import locked
from mrsds_ppl.storage.paths import RunPaths
with locked(RunPaths(Path(sys.argv[1]), "one")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_being_written_is_refused_and_who_writes_it_is_named(tmp_path):
    paths = RunPaths(tmp_path / "new", "one")
    with locked(paths):
        with pytest.raises(RunError, match=rf"one: process {os.getpid()} on .* is writing this run"), locked(paths):
            pass
        assert paths.lock.exists()
        with locked(RunPaths(tmp_path / "new", "two")):
            pass
    assert list(paths.folder.iterdir()) == []


def test_the_lock_is_removed_after_an_error(tmp_path):
    paths = RunPaths(tmp_path, "one")
    with pytest.raises(ValueError, match="anything"), locked(paths):
        raise ValueError("anything")
    assert not paths.lock.exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    paths = RunPaths(tmp_path, "one")
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {process.pid} on"), locked(paths):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert paths.lock.exists()
    with locked(paths):
        assert paths.lock.read_text().startswith(f"process {os.getpid()} on ")
    assert not paths.lock.exists()


def test_what_a_killed_command_left_half_written_is_removed(tmp_path):
    paths = RunPaths(tmp_path, "one[1]")
    left = [
        ".one[1]_latents.mat.7.partial.mat",
        ".one[1]_posterior.nc.7.partial.nc",
        ".one[1]-config.yaml.7.partial.yaml",
    ]
    others = [".one[1]-day2_latents.mat.7.partial.mat", ".one_latents.mat.7.partial.mat"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    with locked(paths):
        assert {path.name for path in tmp_path.iterdir()} == {*others, paths.lock.name}


def refuse(number):
    def refusing(*args, **options):
        raise OSError(number, os.strerror(number))

    return refusing


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, number):
    paths = RunPaths(tmp_path, "one")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse(number))
        with pytest.raises(RunError, match=rf"one\.lock could not be written: {os.strerror(number)}"), locked(paths):
            pass
        with pytest.raises(RunError, match=os.strerror(number)):
            write_text(paths.config, "seeds: 1")
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_a_file_system_without_locks_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module.fcntl, "flock", refuse(errno.ENOLCK))
    with locked(RunPaths(tmp_path, "one")):
        pass


def test_a_disk_that_fills_up_ends_the_run_at_the_line_that_cannot_be_logged():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    printed = []
    with (
        pytest.raises(RunError, match=f"/dev/full could not be written: {os.strerror(errno.ENOSPC)}"),
        run_log(Path("/dev/full"), printed.append, append=True) as say,
    ):
        say("a line")
    assert printed == ["a line"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, number):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(device.tempfile, "TemporaryFile", refuse(number))
    monkeypatch.setattr(device.jax.config, "update", refuse(number))
    with pytest.warns(UserWarning, match=rf"compiles anew, as there is no cache: .*{os.strerror(number)}"):
        device.enable_compilation_cache()


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(UserWarning, match="no cache: Could not determine home directory"):
        device.enable_compilation_cache()
