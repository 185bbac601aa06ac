"""Checkpoints come back bit for bit, survive being killed, and say what is wrong with them."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrsds_ppl.errors import RunError
from mrsds_ppl.storage.checkpoints import COMPLETE, Checkpoints
from mrsds_ppl.train.training import TrainingSettings, initial_state


def make_state(key=jax.random.key, width=3):
    params = {
        "w": jnp.asarray([[1.1, jnp.nan, -0.0][:width]], jnp.float32),
        "parts": [jnp.zeros((2, 0)), jnp.asarray(7, jnp.int32).astype(jnp.float32)],
    }
    settings = TrainingSettings(num_steps=1, batch_size=1, learning_rate=0.1)
    return initial_state(params, key(5), settings)._replace(step=jnp.asarray(40, jnp.int32))


def bits(tree):
    leaves = []
    for leaf in jax.tree.leaves(tree):
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        leaves.append((str(leaf.dtype), raw.shape, np.asarray(raw).tobytes()))
    return jax.tree.structure(tree), leaves


@pytest.mark.parametrize("key", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
def test_state_and_extra_come_back_bit_for_bit(tmp_path, key):
    extra = {
        "history": {"loss": np.asarray([1.5, np.nan, np.inf]), "metrics": {"a/b": np.arange(3), "none": np.zeros(0)}},
        "config": {"name": "toy", "list": [1, 2.5, None, True], "nested": [{"x": np.asarray(3.0)}]},
    }
    state = make_state(key)
    Checkpoints(tmp_path / "name-models").save(40, state, extra)
    restored, found = Checkpoints(tmp_path / "name-models").restore(None, make_state(key)._replace(step=jnp.int32(0)))
    assert bits(restored) == bits(state)
    assert isinstance(restored.params["w"], jax.Array)
    assert found["config"]["name"] == "toy"
    assert found["config"]["list"] == [1, 2.5, None, True]
    assert found["config"]["nested"][0]["x"] == 3.0
    np.testing.assert_array_equal(found["history"]["loss"], extra["history"]["loss"])
    np.testing.assert_array_equal(found["history"]["metrics"]["a/b"], [0, 1, 2])
    assert found["history"]["metrics"]["none"].shape == (0,)


def test_a_checkpoint_that_is_being_replaced_is_not_taken_for_one(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    for step in (4, 8):
        store.save(step, make_state())

    def killed(folder):
        next(path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(8, make_state())
    assert store.steps() == [4]
    store.save(8, make_state())
    assert store.steps() == [4, 8]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "8"]


def test_extra_may_be_left_out(tmp_path):
    Checkpoints(tmp_path).save(1, make_state())
    assert Checkpoints(tmp_path).restore(1, make_state())[1] == {}


def test_keeps_the_latest_few_and_restores_any_of_them(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        path = checkpoints.save(step, make_state()._replace(step=jnp.int32(step)))
        assert path == tmp_path / str(step)
        assert path.is_dir()
    assert checkpoints.steps() == [20, 30]
    assert checkpoints.latest() == 30
    assert int(checkpoints.restore(20, make_state())[0].step) == 20
    checkpoints.clear()
    assert checkpoints.latest() is None


def test_a_step_saved_again_is_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, make_state(), {"turn": 1})
    checkpoints.save(10, make_state(), {"turn": 2})
    assert checkpoints.restore(None, make_state())[1] == {"turn": 2}


def test_half_written_checkpoints_are_passed_over_and_cleared_away(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20):
        checkpoints.save(step, make_state())
    shutil.copytree(tmp_path / "20", tmp_path / "40")
    (tmp_path / "40" / "_CHECKPOINT_METADATA").unlink()
    shutil.copytree(tmp_path / "20", tmp_path / "50.orbax-checkpoint-tmp")
    (tmp_path / "notes").mkdir()
    assert checkpoints.latest() == 20
    with pytest.raises(RunError, match=r"no complete checkpoint of step 40 .*found: \[10, 20\]"):
        checkpoints.restore(40, make_state())
    checkpoints.save(30, make_state())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "30", "notes"]


def test_no_checkpoint_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(RunError, match=r"name-models: no checkpoint to resume from .*without --resume"):
        Checkpoints(tmp_path / "name-models").restore(None, make_state())
    assert not (tmp_path / "name-models").exists()


def test_checkpoint_of_another_model_is_an_error_that_names_the_parameter(tmp_path):
    Checkpoints(tmp_path).save(10, make_state())
    with pytest.raises(RunError) as caught:
        Checkpoints(tmp_path).restore(None, make_state(width=2))
    message = str(caught.value)
    assert f"{tmp_path / '10'}: the checkpoint holds another model" in message
    assert ".params['w'] is float32[1, 3] in the checkpoint and float32[1, 2] in this run" in message
    assert "and 2 more differences" in message  # Adam's two averages

    state = make_state()
    more = state._replace(params=state.params | {"extra": jnp.zeros(2, jnp.float32)})
    with pytest.raises(
        RunError, match=r"\.params\['extra'\] is missing in the checkpoint and float32\[2\] in this run"
    ):
        Checkpoints(tmp_path).restore(None, more)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


# Reading damaged arrays, orbax leaves an event loop to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("part", ["arrays", "about"])
def test_damaged_checkpoint_is_an_error_that_names_it_and_the_one_before(tmp_path, damage, part):
    state = make_state()
    state = state._replace(params=state.params | {"large": jax.random.normal(jax.random.key(0), (4000,))})
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, state)
    damage(largest_file(tmp_path / "20" / part))
    with pytest.raises(RunError) as caught:
        checkpoints.restore(None, state)
    assert f"{tmp_path / '20'}: the checkpoint " in str(caught.value)
    assert "remove this folder to resume from step 10" in str(caught.value)
    shutil.rmtree(tmp_path / "20")
    assert bits(checkpoints.restore(None, state)[0]) == bits(state)


def test_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/models/10: the checkpoint cannot be written"):
        Checkpoints(tmp_path / "file" / "models").save(10, make_state())


def test_saving_says_nothing(tmp_path, capfd, caplog):
    caplog.set_level("INFO")
    Checkpoints(tmp_path).save(10, make_state())
    Checkpoints(tmp_path).restore(10, make_state())
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


# A small regression, trained in a process of its own: resumes where it can, saves every chunk, writes its result last.
PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.train.training import History, TrainingSettings, initial_state, train

folder = Path(sys.argv[1])
settings = TrainingSettings(num_steps=95, batch_size=4, learning_rate=0.05, lr_warmup_steps=5, chunk_steps=10,
                            dropout=True, region_sizes=(3, 3))
y = np.random.default_rng(0).normal(size=(9, 4, 6)).astype(np.float32)
seen = np.ones(y.shape, bool)
none = np.zeros((9, 4, 0), np.float32)
data = Batch(y=y, u=none, observed=seen, visible=seen, lengths=np.full(9, 4, np.int32), stage=none,
             number=np.arange(9, dtype=np.int32))

def objective(params, key, batch, step):
    seen = jnp.where(batch.visible, batch.y, 0.0) + 0.1 * jax.random.normal(key, batch.y.shape)
    error = jnp.mean((jnp.tanh(seen @ params["w"]) - batch.y) ** 2)
    return error, {"error": error}

checkpoints = Checkpoints(folder / "models")
state, earlier = initial_state({"w": jnp.zeros((6, 6))}, jax.random.key(1), settings), History.empty()
if checkpoints.latest() is not None:
    state, extra = checkpoints.restore(None, state)
    earlier = History.from_dict(extra["history"])
histories = [earlier]

def save(state, chunk):
    histories.append(chunk)
    checkpoints.save(int(state.step), state, {"history": History.concatenate(histories).to_dict()})
    print(int(state.step), flush=True)

result = train(objective, state, data, settings, on_chunk=save)
history = History.concatenate(histories)
with open(folder / "result.npz", "wb") as file:
    np.savez(file, w=result.state.params["w"], loss=history.loss, step=history.step, error=history.metrics["error"])
"""


def start(folder):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.nightly
def test_killed_run_goes_on_bit_for_bit_as_if_never_killed(tmp_path):
    with start(tmp_path / "whole") as whole:
        assert len(whole.stdout.read().split()) == 10
    assert whole.returncode == 0
    delay = np.random.default_rng().uniform(0, 0.3)  # a chunk, which is mostly its save, takes about 0.2 s
    with start(tmp_path / "killed") as process:
        process.stdout.readline()  # the first chunk of this turn is saved
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, delay
    with start(tmp_path / "killed") as last:
        steps = [int(step) for step in last.stdout.read().split()]
    assert last.returncode == 0
    assert steps == [] or steps[0] > 10  # it went on, and did not begin again
    with np.load(tmp_path / "whole" / "result.npz") as a, np.load(tmp_path / "killed" / "result.npz") as b:
        assert set(a) == set(b) == {"w", "loss", "step", "error"}
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)
