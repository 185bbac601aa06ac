"""What a worker's process is told before it computes: one thread, one core, nothing on the terminal. No JAX here."""

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from distributed import Worker, WorkerPlugin

from mrsds_ppl.backend.compiler_flags import add_flags, choose_optimization_level

_THREADS = Path("/proc/self/task")
# XLA's own pool has as many threads as the process has cores; where those are not set, a product of matrices at least
# shall keep to one.
_ONE_THREAD = [("--xla_cpu_multi_thread_eigen", "false")]


class OneCore(WorkerPlugin):
    """Sets up every process of a worker, also one that takes the place of one that died.

    Args:
        cores: number of the core of each worker by its name; others keep what they are given, as by a batch system.
    """

    name = "mrsds-one-core"

    def __init__(self, cores: Mapping[str, int]) -> None:
        self.cores = dict(cores)

    def setup(self, worker: Worker) -> None:
        """Before JAX is imported, which reads its flags and counts its cores once."""
        add_flags(_ONE_THREAD)
        choose_optimization_level()
        # Several processes may share one GPU.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C on a terminal reaches all its processes; the command ends its workers itself.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        core = self.cores.get(str(worker.name))
        if core is None or not hasattr(os, "sched_setaffinity"):
            return
        # The affinity is that of a thread, which those take over that it begins.
        for thread in _THREADS.iterdir() if _THREADS.exists() else [Path("0")]:
            os.sched_setaffinity(int(thread.name), {core})
