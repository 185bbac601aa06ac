"""The compiled training loop: Adam on any objective, whole chunks of steps in one compiled program.

The loop knows no model and no guide. It is given an objective of parameters, a key, a batch and the step, and minimises
it. Everything random in step s is drawn from the run's key folded with s, and chunks end at multiples of `chunk_steps`,
so a run that goes on from a state saved at the end of a chunk repeats the uninterrupted run bit for bit.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mrsds_ppl.backend.sharding import begun_on, on_default_device, trial_mesh, whole_again
from mrsds_ppl.backend.side_by_side import at_once, each_on_a_core, on_cores
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.errors import RunError
from mrsds_ppl.train.batches import Data, draw_batch, hide_neurons
from mrsds_ppl.train.history import History as History
from mrsds_ppl.train.history import Keys, failure_message, stack
from mrsds_ppl.train.history import TrainResult as TrainResult
from mrsds_ppl.train.history import TrainState as TrainState
from mrsds_ppl.train.schedules import Pace, learning_rate_schedule, pace_of
from mrsds_ppl.train.settings import TrainingSettings as TrainingSettings

# (params, key, batch, step) -> (loss, metrics): the loss is minimised, the metrics are named scalars to report.
Objective: TypeAlias = Callable[
    [Any, PRNGKeyArray, Batch, Int[Array, ""]], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
]
RunChunk: TypeAlias = Callable[["TrainState", Data, int, Pace], tuple["TrainState", "History"]]

ADAM = optax.scale_by_adam()

# Axes of restarts in a state and in a row of the history; they share the count of steps and its learning rate.
STACKED_STATE: PyTree[int] = TrainState._make((0, 0, 0, None, 0, 0))
STACKED_OUT: PyTree[int] = (STACKED_STATE, History._make((None, 1, None, 1, 1, 1, 1)))
# Nothing is answered while compiled code computes: calls are about as long as a user waits for an answer.
_LONGEST_CALL = 1.0  # seconds


def initial_state(params: PyTree, key: Keys, settings: TrainingSettings, *, stacked: bool = False) -> TrainState:
    """The state before the first step; `params` are copied, so the caller keeps its own.

    Args:
        params: where to start.
        key: random key of the run.
        settings: how it is optimised.
        stacked: parameters and key are those of several restarts, along a leading axis.
    """
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.result_type(leaf)), params)

    # Three separate zeros: a chunk takes over the state's buffers, and one buffer cannot be given away twice.
    def fresh(params: PyTree, key: PRNGKeyArray) -> TrainState:
        copied = jax.tree.map(jnp.copy, params)
        return TrainState(
            copied, ADAM.init(ravel_pytree(params)[0]), jnp.copy(key), *(jnp.zeros((), jnp.int32) for _ in range(3))
        )

    # Compiled as one program; leaf by leaf it takes longer than the first step.
    if stacked:
        return jax.jit(jax.vmap(fresh, out_axes=STACKED_STATE))(params, key)
    return jax.jit(fresh)(params, key)


def make_run_chunk(
    objective: Objective, settings: TrainingSettings, trainable: PyTree | None = None, *, stacked: bool = False
) -> RunChunk:
    """Compiles `(state, data, most, pace) -> (state, history)`, the steps up to the next multiple of `chunk_steps`.

    The number of steps is a traced bound of one loop: a last, shorter chunk, a chunk after resuming, and one that is
    done in several calls of at most `most` steps run the same program, which is traced once; so does one at another
    pace, by default that of the schedule. Inside, nothing moves between host and device. The state passed in is
    consumed.

    Args:
        objective: what is minimised.
        settings: how.
        trainable: pytree of bool like the parameters, or a prefix of it; where False, parameters stay exactly as they
            are.
        stacked: the state is that of several restarts, which are trained side by side: batched on an accelerator and
            where trials are spread over devices, else each on a core of a CPU. The objective sees one, and is traced
            once.
    """
    schedule = learning_rate_schedule(settings.learning_rate, settings.lr_warmup_steps, settings.num_steps)
    limit, scheduled = settings.gradient_clip, Pace.scheduled(settings.num_steps)

    # All parameters are one vector here: the optimiser's dozen operations then stand once in the compiled program, not
    # once for each array of the networks, and compile in half the time.
    def one_step(
        unravel: Callable[[Array], PyTree], state: TrainState, data: Data, pace: Pace
    ) -> tuple[TrainState, History]:
        batch_key, dropout_key, objective_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        batch = draw_batch(batch_key, data, settings.batch_size)
        if settings.dropout:
            visible = hide_neurons(
                dropout_key, batch.visible, settings.region_sizes, settings.drop_perc, settings.dropout_trial_perc
            )
            batch = batch._replace(visible=visible)

        def loss_of(flat: Array) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
            params = unravel(flat)
            if trainable is not None:
                train = jax.tree.broadcast(trainable, params)
                params = jax.tree.map(lambda leaf, on: leaf if on else jax.lax.stop_gradient(leaf), params, train)
            return objective(params, objective_key, batch, state.step)

        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        # Checked before clipping, which would turn an infinity into a number.
        bad = ~jnp.isfinite(gradient)
        ok = jnp.isfinite(loss) & ~bad.any()
        learning_rate = pace.rate(schedule, state.step, settings.num_steps)
        clipped = jnp.clip(gradient, -limit, limit)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of the integer step count
            norm = jnp.linalg.norm(gradient)
            direction, opt_state = ADAM.update(clipped, state.opt_state)

        moved = state.params - learning_rate.astype(state.params.dtype) * direction
        moves = ok if trainable is None else ok & _mask(trainable, unravel, state.params)
        skipped = (~ok).astype(jnp.int32)
        after = TrainState(
            params=jnp.where(moves, moved, state.params),
            opt_state=jax.tree.map(lambda new, old: jnp.where(ok, new, old), opt_state, state.opt_state),
            key=state.key,
            step=state.step + 1,
            skipped=state.skipped + skipped,
            skipped_in_row=(state.skipped_in_row + 1) * skipped,
        )
        bad_gradient = jnp.where(bad.any(), jnp.argmax(bad), -1).astype(jnp.int32)
        return after, History(state.step, loss, learning_rate, norm, ~ok, bad_gradient, metrics)

    def chunk_of_one(
        whole: TrainState, data: Data, most: int | Array = settings.chunk_steps, pace: Pace = scheduled
    ) -> tuple[TrainState, History]:
        flat, unravel = ravel_pytree(whole.params)
        state = whole._replace(params=flat)
        # Compiled on its own so that the shapes of the history below come from the trace that the loop then reuses.
        step = jax.jit(partial(one_step, unravel), inline=True)
        _, row = jax.eval_shape(step, state, data, pace)
        history = jax.tree.map(lambda leaf: jnp.zeros((settings.chunk_steps, *leaf.shape), leaf.dtype), row)
        history = history._replace(step=jnp.full_like(history.step, -1))
        first = state.step
        left = settings.chunk_steps - first % settings.chunk_steps
        last = jnp.minimum(first + jnp.minimum(left, most), pace.end)

        def more(carry: tuple[TrainState, History]) -> Bool[Array, ""]:
            # One restart that goes wrong does not stop the others, which share its count of steps.
            fine = True if stacked else carry[0].skipped_in_row < settings.max_skipped_in_row
            return (carry[0].step < last) & fine

        def body(carry: tuple[TrainState, History]) -> tuple[TrainState, History]:
            state, history = carry
            after, row = step(state, data, pace)
            return after, jax.tree.map(lambda rows, value: rows.at[state.step - first].set(value), history, row)

        state, history = jax.lax.while_loop(more, body, (state, history))
        return whole_again(data, (state._replace(params=unravel(state.params)), history))

    if not stacked:
        return at_once(chunk_of_one, donate_argnums=0)
    if not on_cores() or trial_mesh() is not None:
        of_all = jax.vmap(chunk_of_one, in_axes=(STACKED_STATE, None, None, None), out_axes=STACKED_OUT)
        return at_once(
            lambda state, data, most=settings.chunk_steps, pace=scheduled: whole_again(
                data, of_all(state, data, most, pace)
            ),
            donate_argnums=0,
        )
    run_each = each_on_a_core(chunk_of_one, donate_argnums=0)

    def chunk_of_each(
        state: TrainState, data: Data, most: int = settings.chunk_steps, pace: Pace = scheduled
    ) -> tuple[TrainState, History]:
        return _joined(run_each([(one, data, most, pace) for one in _apart(state)]))

    return chunk_of_each


@jax.jit
def _copied(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


@jax.jit
def _apart(state: TrainState) -> list[TrainState]:
    return [state.restart(number) for number in range(len(state.skipped))]


@jax.jit
def _joined(found: list[tuple[TrainState, History]]) -> tuple[TrainState, History]:
    states, histories = zip(*found, strict=True)
    state, history = stack(states), stack(histories, axis=1)
    # They share the count of steps and its learning rate.
    return state._replace(step=states[0].step), history._replace(
        step=histories[0].step, learning_rate=histories[0].learning_rate
    )


def _mask(trainable: PyTree, unravel: Callable[[Array], PyTree], flat: Array) -> Bool[Array, " parameter"]:
    """Which entries of the vector of parameters are trained."""
    params = unravel(flat)
    train = jax.tree.broadcast(trainable, params)
    return ravel_pytree(jax.tree.map(lambda leaf, on: jnp.full(leaf.shape, float(on)), params, train))[0] > 0


def train(
    objective: Objective,
    state: TrainState,
    data: Batch,
    settings: TrainingSettings,
    *,
    on_chunk: Callable[[TrainState, History], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    trainable: PyTree | None = None,
    last_checkpoint: Callable[[], Path | None] | None = None,
    run_chunk: RunChunk | None = None,
    until: int | None = None,
    before: History | None = None,
    factor: float = 1.0,
) -> TrainResult:
    """Runs the steps from `state.step` to `num_steps`, or to `until`.

    Args:
        objective: what is minimised.
        state: where to start: `initial_state`, or a restored one. It is copied.
        data: the whole training set; put on the device once by the caller, or here, over devices always here.
        settings: how it is optimised.
        on_chunk: called after each chunk with the state, whose arrays the next chunk takes over (save or copy them
            before returning), and with the steps of the chunk.
        should_stop: asked about once a second; True ends the run there.
        trainable: see `make_run_chunk`.
        last_checkpoint: path of the latest checkpoint, for the message when training fails.
        run_chunk: the compiled loop, where several calls share one (see `make_run_chunk`).
        until: step to stop at, a multiple of `chunk_steps`; the schedule is that of `num_steps` all the same.
        before: the steps so far. Where it is given, the run ends when the bound no longer rises, see
            :func:`mrsds_ppl.train.schedules.pace_of`.
        factor: of the scheduled rate.

    Raises:
        RunError: `max_skipped_in_row` steps in a row gave a non-finite loss or gradient, or `region_sizes` do not add
            up to the neurons of `data`.
    """
    if settings.dropout and sum(settings.region_sizes) != data.y.shape[2]:
        raise RunError(
            f"neuron dropout: region sizes {settings.region_sizes} add up to {sum(settings.region_sizes)}, but the "
            f"training set has {data.y.shape[2]} neurons; give region sizes that add up to them"
        )
    run_chunk = run_chunk or make_run_chunk(objective, settings, trainable)
    state, placed = begun_on(_copied(state), data)
    stop = should_stop or (lambda: False)
    pace = Pace.scheduled(settings.num_steps, factor) if before is None else pace_of(before, settings, factor)
    parts: list[History] = []
    histories: list[History] = []
    most, asked = 1, stop()
    while int(state.step) < (end := min(int(pace.end), until or settings.num_steps)) and not asked:
        began = time.perf_counter()
        state, part = run_chunk(state, placed, most, pace)
        parts.append(part.trimmed())
        seconds_a_step = (time.perf_counter() - began) / max(len(parts[-1].step), 1)
        most = int(np.clip(_LONGEST_CALL / seconds_a_step, 1, settings.chunk_steps))
        step, asked = int(state.step), stop()
        failed = int(np.min(state.skipped_in_row)) >= settings.max_skipped_in_row
        if step % settings.chunk_steps and step < end and not asked and not failed:
            continue
        chunk, parts = History.concatenate(parts), []
        histories.append(chunk)
        if failed:
            one, last = (state.restart(0), chunk.restart(0)) if state.skipped.ndim else (state, chunk)
            checkpoint = last_checkpoint() if last_checkpoint else None
            raise RunError(failure_message(one, last, settings.num_steps, settings.learning_rate, checkpoint))
        if before is not None:
            pace = pace_of(History.concatenate([before, *histories]), settings, factor)
        if on_chunk is not None:
            on_chunk(state, chunk)
            asked = asked or stop()
    return TrainResult(on_default_device(state), History.concatenate(histories), int(state.step) < end)
