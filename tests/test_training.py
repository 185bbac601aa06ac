"""The compiled loop against a plain optax loop, and its promises: one trace, no transfers, bad steps, resuming."""

import hashlib
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from io import StringIO

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.train.batches import draw_batch, hide_neurons
from mrsds_ppl.train.interrupts import answered, graceful_interrupt
from mrsds_ppl.train.progress import Rounds, ScalarLog, TrainingProgress
from mrsds_ppl.train.schedules import learning_rate_schedule
from mrsds_ppl.train.training import History, TrainingSettings, initial_state, make_run_chunk, train

TRIALS, BINS, REGIONS = 12, 5, (4, 7)
NEURONS = sum(REGIONS)


def make_data(seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(TRIALS, BINS, NEURONS)).astype(np.float32)
    seen = np.ones(y.shape, bool)
    return jax.device_put(
        Batch(
            y=y,
            u=np.zeros((TRIALS, BINS, 0), np.float32),
            observed=seen,
            visible=seen,
            lengths=np.full(TRIALS, BINS, np.int32),
            stage=np.zeros((TRIALS, BINS, 0), np.float32),
            number=np.arange(TRIALS, dtype=np.int32),
        )
    )


def make_settings(**changes):
    values = dict(num_steps=25, batch_size=5, learning_rate=0.05, lr_warmup_steps=5, chunk_steps=10)
    return TrainingSettings(**(values | changes))


def make_params():
    return {"mean": jnp.zeros(NEURONS), "log_scale": jnp.zeros(())}


def objective(params, key, batch, step):
    """Negative Gaussian log likelihood with shifted data, so that keys, batches and hidden neurons all matter."""
    raw = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    shift = raw[0].astype(jnp.float32) * 2.0**-34
    y = jnp.where(batch.visible, batch.y, 0.0) + shift
    error = jnp.mean((y - params["mean"][None, None]) ** 2) * jnp.exp(-2 * params["log_scale"])
    return error + params["log_scale"], {"error": error, "scale": jnp.exp(params["log_scale"])}


def failing(when, how):
    """The objective with a loss (how = "loss") or a gradient (how = "gradient") that is not finite at some steps."""

    def wrapped(params, key, batch, step):
        loss, metrics = objective(params, key, batch, step)
        bad = when(step)
        if how == "loss":
            return jnp.where(bad, jnp.nan, loss), metrics | {"error": jnp.where(bad, jnp.inf, metrics["error"])}
        # The square root has an infinite slope at 0.
        zero = params["log_scale"] - jax.lax.stop_gradient(params["log_scale"])
        return loss + jnp.sqrt(jnp.where(bad, zero, 1.0)) - jnp.where(bad, 0.0, 1.0), metrics

    return wrapped


def run(objective=objective, settings=None, state=None, data=None, **options):
    settings = settings or make_settings()
    state = initial_state(make_params(), jax.random.key(3), settings) if state is None else state
    return train(objective, state, make_data() if data is None else data, settings, **options)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_learning_rate_ramps_then_falls_by_cosine_to_one_percent():
    schedule = learning_rate_schedule(0.02, 10, 110)
    steps = np.asarray([0, 5, 10, 60, 110, 500])
    expected = [1e-5, (1e-5 + 0.02) / 2, 0.02, 0.02 * (0.01 + 0.99 / 2), 0.0002, 0.0002]
    np.testing.assert_allclose([float(schedule(int(step))) for step in steps], expected, rtol=1e-3)


@pytest.mark.parametrize(("warmup", "num_steps"), [(0, 10), (10, 10), (50, 10)])
def test_learning_rate_of_runs_without_or_within_the_warmup_is_finite_and_bounded(warmup, num_steps):
    schedule = learning_rate_schedule(0.02, warmup, num_steps)
    rates = np.asarray([float(schedule(step)) for step in range(num_steps)])
    assert np.all((rates >= 1e-5 * 0.999) & (rates <= 0.02 * 1.001))
    assert float(schedule(0)) == pytest.approx(0.02 if warmup == 0 else 1e-5, rel=1e-3)


def test_batches_hold_different_whole_trials_and_change_with_the_key():
    data = make_data()._replace(lengths=jnp.arange(TRIALS, dtype=jnp.int32))
    drawn = [draw_batch(jax.random.key(seed), data, 5) for seed in range(40)]
    for batch in drawn:
        assert len(set(np.asarray(batch.lengths).tolist())) == 5
        np.testing.assert_array_equal(batch.y, data.y[batch.lengths])
    assert len({tuple(np.asarray(batch.lengths).tolist()) for batch in drawn}) > 30
    assert set(np.concatenate([batch.lengths for batch in drawn]).tolist()) == set(range(TRIALS))


def test_batch_is_capped_at_the_number_of_trials():
    assert_same(draw_batch(jax.random.key(0), make_data(), 64), make_data())


@pytest.mark.parametrize("drop_perc", [0.0, 0.25, 0.5, 1.0])
def test_dropout_hides_the_stated_number_of_each_regions_neurons(drop_perc):
    visible = jnp.ones((200, 3, NEURONS), bool).at[:, 2].set(False)
    hidden = np.asarray(visible & ~hide_neurons(jax.random.key(1), visible, REGIONS, drop_perc, 1.0))
    np.testing.assert_array_equal(hidden[:, 0], hidden[:, 1])
    per_region = np.stack([part.sum(1) for part in np.split(hidden[:, 0], np.cumsum(REGIONS)[:-1], axis=1)], 1)
    np.testing.assert_array_equal(per_region, np.tile([round(drop_perc * size) for size in REGIONS], (200, 1)))


def test_dropout_is_uniform_over_neurons_and_strikes_the_stated_share_of_trials():
    visible = jnp.ones((4000, 1, NEURONS), bool)
    hidden = ~np.asarray(hide_neurons(jax.random.key(2), visible, REGIONS, 0.5, 0.3))[:, 0]
    struck = hidden.any(1)
    assert abs(struck.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 4000)
    expected = np.repeat([2 / 4, 4 / 7], REGIONS)  # round(3.5) is 4
    assert np.all(np.abs(hidden[struck].mean(0) - expected) < 5 * 0.5 / np.sqrt(struck.sum()))


def test_dropout_is_exact_with_one_region_and_with_many():
    visible = jnp.ones((50, 1, 300), bool)
    for sizes in [(300,), (1,) * 300, (100, 150, 50)]:
        hidden = ~np.asarray(hide_neurons(jax.random.key(2), visible, sizes, 0.3, 1.0))
        assert np.all(hidden.sum((1, 2)) == sum(round(0.3 * size) for size in sizes))


def test_objective_scores_hidden_neurons_and_keeps_what_was_not_visible():
    def counting(params, key, batch, step):
        counts = {name: jnp.sum(getattr(batch, name)).astype(jnp.float32) for name in ("observed", "visible")}
        return jnp.sum(params["mean"] ** 2), counts

    settings = make_settings(dropout=True, drop_perc=0.5, dropout_trial_perc=1.0, region_sizes=REGIONS)
    metrics = run(counting, settings).history.metrics
    np.testing.assert_array_equal(metrics["observed"], 5 * BINS * NEURONS)
    np.testing.assert_array_equal(metrics["visible"], 5 * BINS * (NEURONS - 6))


def test_dropout_with_wrong_region_sizes_is_an_error_that_names_both_numbers():
    with pytest.raises(RunError, match=r"add up to 9, but the training set has 11 neurons"):
        run(settings=make_settings(dropout=True, region_sizes=(4, 5)))


@pytest.mark.slow
def test_equals_a_plain_optax_loop():
    settings = make_settings(batch_size=TRIALS, gradient_clip=0.02)
    result = run(settings=settings)

    params, key, data = make_params(), jax.random.key(3), make_data()
    adam = optax.chain(optax.clip(0.02), optax.adam(learning_rate_schedule(0.05, 5, 25)))
    opt_state = adam.init(params)
    losses, norms = [], []
    for step in range(25):
        objective_key = jax.random.split(jax.random.fold_in(key, step), 3)[2]
        (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(params, objective_key, data, step)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, opt_state = adam.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
        norms.append(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient))))
    np.testing.assert_allclose(result.history.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(result.history.gradient_norm, norms, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result.state.params, params)
    assert np.max(norms) > 0.02  # the clip was at work


def test_learns_and_reports_each_step_once():
    result = run(settings=make_settings(num_steps=333, chunk_steps=50))
    np.testing.assert_array_equal(result.history.step, np.arange(333))
    assert set(result.history.metrics) == {"error", "scale"}
    assert result.history.loss[-50:].mean() < result.history.loss[:10].mean()
    assert not result.stopped
    assert int(result.state.step) == 333


def test_one_trace_serves_all_chunks():
    traces = []

    def traced(params, key, batch, step):
        traces.append(None)
        return objective(params, key, batch, step)

    settings = make_settings(num_steps=47, dropout=True, region_sizes=REGIONS)
    chunks = []
    run(traced, settings, on_chunk=lambda state, history: chunks.append(len(history.step)))
    assert chunks == [10, 10, 10, 10, 7]
    assert len(traces) == 1


def test_last_chunk_compiles_nothing(caplog):
    settings = make_settings()
    run_chunk = make_run_chunk(objective, settings)
    state, data = initial_state(make_params(), jax.random.key(0), settings), make_data()
    state, _ = run_chunk(state, data)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        state, _ = run_chunk(state, data)
        state, history = run_chunk(state, data)
    assert caplog.text == ""
    np.testing.assert_array_equal(history.step, [20, 21, 22, 23, 24, -1, -1, -1, -1, -1])


def test_a_chunk_in_several_calls_is_the_same_chunk_bit_for_bit():
    settings = make_settings(dropout=True, region_sizes=REGIONS)
    run_chunk, data = make_run_chunk(objective, settings), make_data()

    def after(*calls):
        state, rows = initial_state(make_params(), jax.random.key(0), settings), []
        for most in calls:
            state, part = run_chunk(state, data, most)
            rows.append(part.trimmed())
        return state, History.concatenate(rows)

    whole, in_parts = after(10), after(1, 3, 99)
    assert [len(history.step) for _, history in (whole, in_parts)] == [10, 10]
    assert_same(whole[0].params, in_parts[0].params)
    assert_same(whole[1], in_parts[1])


def test_chunk_moves_nothing_between_host_and_device():
    settings = make_settings(dropout=True, region_sizes=REGIONS)
    run_chunk = make_run_chunk(objective, settings)
    state, data = initial_state(make_params(), jax.random.key(0), settings), make_data()
    with jax.transfer_guard("disallow"):
        state, history = run_chunk(state, data)
        jax.block_until_ready(history)
    assert len(history.trimmed().step) == 10


def test_train_leaves_the_callers_state_and_parameters_alone():
    params, settings = make_params(), make_settings()
    state = initial_state(params, jax.random.key(3), settings)
    first = run(state=state)
    assert_same(first[:2], run(state=state)[:2])
    np.testing.assert_array_equal(params["mean"], 0)


@pytest.mark.slow
@pytest.mark.parametrize("key", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(key):
    settings = make_settings(num_steps=47, dropout=True, region_sizes=REGIONS)
    start = initial_state(make_params(), key(3), settings)
    whole = run(settings=settings, state=start)
    stops = iter([False, False, True])  # within a chunk
    part = run(settings=settings, state=start, should_stop=lambda: next(stops))
    assert part.stopped
    assert 0 < int(part.state.step) < 47
    rest = run(settings=settings, state=part.state)
    assert_same(rest.state, whole.state)
    assert_same(History.concatenate([part.history, rest.history]), whole.history)


def test_run_from_within_a_chunk_ends_its_first_chunk_at_the_next_multiple():
    short = run(settings=make_settings(num_steps=13))
    chunks = []
    run(
        settings=make_settings(num_steps=33),
        state=short.state,
        on_chunk=lambda state, _: chunks.append(int(state.step)),
    )
    assert chunks == [20, 30, 33]


def test_finished_run_has_nothing_left_to_do():
    done = run()
    again = run(state=done.state)
    assert_same(again.state, done.state)
    assert len(again.history.step) == 0
    assert not again.stopped
    assert_same(History.concatenate([done.history, again.history]), done.history)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_steps_that_are_not_finite_change_nothing_and_are_counted(how):
    settings = make_settings(num_steps=10, max_skipped_in_row=4)
    good = run(settings=make_settings(num_steps=10, chunk_steps=4))
    bad = run(failing(lambda step: step >= 7, how), settings)
    np.testing.assert_array_equal(bad.history.skipped, np.arange(10) >= 7)
    assert int(bad.state.skipped) == int(bad.state.skipped_in_row) == 3
    np.testing.assert_allclose(bad.history.loss[:7], good.history.loss[:7], rtol=1e-5)
    chunks = []
    before = run(
        failing(lambda step: step >= 7, how),
        make_settings(num_steps=10, chunk_steps=7, max_skipped_in_row=1),
        on_chunk=lambda *chunk: chunks.append(chunk),
        should_stop=lambda: bool(chunks),
    )
    assert_same(before.state.params, bad.state.params)
    assert_same(before.state.opt_state, bad.state.opt_state)


def test_good_step_ends_a_row_of_skipped_ones():
    result = run(failing(lambda step: step % 3 != 0, "loss"), make_settings(num_steps=24, max_skipped_in_row=3))
    assert int(result.state.skipped) == 16
    assert int(result.state.skipped_in_row) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


def test_run_stops_after_too_many_bad_steps_and_names_terms_and_checkpoint(tmp_path):
    chunks = []
    with pytest.raises(RunError) as caught:
        run(
            failing(lambda step: step >= 12, "loss"),
            make_settings(num_steps=60),
            on_chunk=lambda state, _: chunks.append(int(state.step)),
            last_checkpoint=lambda: tmp_path / "30",
        )
    message = str(caught.value)
    assert "stopped at step 32 of 60: 20 steps in a row" in message
    assert "(not finite in the last one: error, the loss)" in message
    assert f"the last good checkpoint is {tmp_path / '30'}" in message
    assert "training.learning_rate (it is 0.05)" in message
    assert chunks == [10, 20, 30]


def test_message_names_the_parameter_whose_gradient_is_not_finite():
    with pytest.raises(RunError, match=r"last one: the gradient of parameter \['log_scale'\]\); no checkpoint"):
        run(failing(lambda step: step >= 2, "gradient"), make_settings(num_steps=60))


def test_frozen_parameters_stay_exactly_as_they_are_while_others_move():
    settings = make_settings()
    params = {"guide": {"a": jnp.full(3, 0.1), "b": jnp.full((), -1.3)}, "mean": jnp.zeros(NEURONS)}

    def both(params, key, batch, step):
        loss = jnp.sum((params["guide"]["a"] - params["mean"][:3]) ** 2) + (params["guide"]["b"] ** 2)
        return loss + jnp.mean((batch.y - params["mean"][None, None]) ** 2), {}

    warm = run(both, settings, initial_state(params, jax.random.key(0), settings)).state  # Adam's averages are not zero
    warm = warm._replace(step=jnp.zeros((), jnp.int32))
    result = run(both, settings, warm, trainable={"guide": False, "mean": True})
    assert_same(result.state.params["guide"], warm.params["guide"])
    assert np.all(result.state.params["mean"] != warm.params["mean"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_at_the_next_chunk(number):
    before = signal.getsignal(number)

    def interrupt_second_chunk(state, history):
        if int(state.step) == 20:
            os.kill(os.getpid(), number)

    with graceful_interrupt() as interrupted:
        assert not interrupted()
        result = run(settings=make_settings(num_steps=60), on_chunk=interrupt_second_chunk, should_stop=interrupted)
    assert interrupted()
    assert interrupted.signal == number
    assert result.stopped
    assert int(result.state.step) == 20
    assert signal.getsignal(number) is before


def test_second_signal_interrupts_at_once():
    with graceful_interrupt() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_is_answered_while_compiled_code_computes():
    seen = []
    with answered(seen.append), graceful_interrupt() as interrupted:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        # As a compiled loop, this lets other threads run, and handlers wait until it returns.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)
        seen.append("computed")
        assert interrupted()
    assert [line.split()[0] for line in seen] == ["stopping", "computed"]


def test_progress_writes_lines_to_the_log_and_no_bar_where_there_is_no_terminal(caplog):
    written = StringIO()
    console = Console(file=written, force_terminal=False)
    with (
        caplog.at_level(logging.INFO, "mrsds_ppl"),
        TrainingProgress("training", 25, shown=("error",), console=console) as p,
    ):
        run(failing(lambda step: step == 14, "loss"), on_chunk=lambda state, history: p.update(history))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split("  ")[0] for line in lines if "skipped" not in line] == [
        "training: step 10 of 25",
        "training: step 20 of 25",
        "training: step 25 of 25",
    ]
    assert all("error " in line and "ms a step" in line for line in lines if "skipped" not in line)
    assert "nan" not in " ".join(lines)
    assert [line for line in lines if "skipped" in line] == [
        "training: skipped 1 of the last 10 steps, whose loss or gradient was not finite (1 so far)"
    ]
    assert written.getvalue() == ""


@pytest.mark.parametrize("watched", [True, False])
def test_where_nobody_watches_bars_there_are_lines(monkeypatch, watched):
    now, lines, seen = [0.0], [], StringIO()
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: watched, raising=False)
    console = Console(file=seen, force_terminal=True, width=80)
    with Rounds("smoothing", 5, lines.append, console=console) as rounds:
        for _ in range(5):
            now[0] += 15.0
            rounds.next()
    with TrainingProgress("training", 300, console=console, say=lines.append) as progress:
        for chunk in range(3):
            row = np.full(100, 0.5)
            progress.update(History(np.arange(100) + 100 * chunk, row, row, row, row > 1, row.astype(int), {}))
    told = ["smoothing ...", "smoothing: 2 of 5 rounds", "smoothing: 4 of 5 rounds"]
    told += [f"training: step {step} of 300  loss 0.5  lr 0.5  0.0 ms a step" for step in (100, 200, 300)]
    assert lines == ([] if watched else told)
    assert "5/5" in seen.getvalue()


def test_bars_of_all_stages_fit_80_columns():
    seen, row = StringIO(), np.full(1, -1.2345678)
    console = Console(file=seen, force_terminal=True, width=200)
    history = History(np.array([99_998]), row, row, row, row > 0, row.astype(int), {"elbo": row, "log_px": row})
    with TrainingProgress("guide, noise x 8", 100_000, shown=("elbo", "log_px"), console=console) as progress:
        progress.update(history)
    with Rounds("smoothing of the training trials", None, print, console=console):
        pass
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.getvalue()).splitlines()
    assert any("99999/100000" in line and "elbo -1.2346" in line for line in lines)
    assert max(len(line.split("\r")[-1].rstrip()) for line in lines) <= 80


def test_progress_draws_a_bar_on_a_terminal():
    written = StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    with TrainingProgress("training", 25, console=console) as p:
        run(on_chunk=lambda state, history: p.update(history))
    assert "25/25" in written.getvalue()
    assert "loss" in written.getvalue()


@pytest.mark.parametrize(
    ("compiling", "a_step", "said"),
    [
        (60.0, 0.12, ["training: about 4 min for 1800 more steps at 0.12 s a step"]),
        (0.0, 0.02, ["training: about 36 s for 1800 more steps at 0.02 s a step"]),
        (9.0, 5.0, ["training: about 2.5 h for 1800 more steps at 5 s a step"]),
        (900.0, 0.01, []),
    ],
)
def test_the_time_that_is_left_is_said_once_and_not_from_the_chunk_that_compiles(monkeypatch, compiling, a_step, said):
    now, lines = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    row = np.zeros(100)
    with TrainingProgress("training", 2000, visible=False, say=lines.append) as progress:
        for chunk in range(20):
            now[0] += 100 * a_step + (compiling if chunk == 0 else 0.0)
            step = np.arange(100 * chunk, 100 * (chunk + 1))
            progress.update(History(step, row, row, row, row > 0, row.astype(int), {}))
    assert lines == said


def read_scalars(path):
    from tensorboardX.proto.event_pb2 import Event

    raw, scalars = path.read_bytes(), {}
    while raw:
        (length,) = struct.unpack("<Q", raw[:8])
        event = Event.FromString(raw[12 : 12 + length])
        raw = raw[16 + length :]
        for value in event.summary.value:
            scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


def test_tensorboard_scalars_hold_the_means_of_each_chunk(tmp_path):
    with ScalarLog(tmp_path / "name-logs", "training") as scalars:
        history = run(on_chunk=lambda state, history: scalars.write(history)).history
    (path,) = (tmp_path / "name-logs" / "training").iterdir()
    found = read_scalars(path)
    assert set(found) == {"loss", "error", "scale", "gradient_norm", "learning_rate", "skipped_steps"}
    assert [step for step, _ in found["error"]] == [10, 20, 25]
    expected = [part.mean() for part in np.split(history.metrics["error"], [10, 20])]
    np.testing.assert_allclose([value for _, value in found["error"]], expected, rtol=1e-5)


def test_importing_does_no_jax_work_and_leaves_orbax_out():
    names = ("training", "batches", "schedules", "progress", "interrupts")
    modules = (*(f"train.{name}" for name in names), "storage.checkpoints")
    code = (
        f"import sys; {'; '.join(f'import mrsds_ppl.{name}' for name in modules)}\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
        "assert not {'orbax', 'tensorboardX'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
