"""By hand: a training step on one device and spread over several, its time and the memory that is planned for each.

    MRSDS_BENCH=full XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/benchmarks/bench_devices.py

Host devices share the cores of one CPU: their memory and their numbers are those of several devices, their times are
not.
"""

import jax
import numpy as np
from bench_case import SIZES, make_step
from bench_floor import timed

from mrsds_ppl.backend.sharding import begun_on, on_devices


def measured(devices: int) -> str:
    """One line of the table."""
    with on_devices(devices):
        step = make_step("gaussian_markov", "convolution", SIZES)
        state, data = begun_on(step.state, step.data)
        plan = step.run_chunk.lower(state, data).compile().memory_analysis()
        signals = max(jax.tree.leaves(data), key=lambda leaf: leaf.nbytes)

        def run() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(step.run_chunk(state, data))

        run()
        seconds = min(timed(run) for _ in range(5)) / SIZES.steps
    held = signals.addressable_shards[0].data.nbytes
    kilobytes = [1e-3 * size for size in (held, plan.argument_size_in_bytes, plan.temp_size_in_bytes)]
    return f"{devices:7d}  {1e3 * seconds:9.2f}  " + "  ".join(f"{size:13,.0f}" for size in kilobytes)


def main() -> None:
    print("devices  ms a step    signals, kB  arguments, kB  temporary, kB")
    for devices in np.unique([1, 2, jax.local_device_count()]):
        if devices <= jax.local_device_count():
            print(measured(int(devices)), flush=True)


if __name__ == "__main__":
    main()
