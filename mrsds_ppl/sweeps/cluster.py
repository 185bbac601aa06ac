"""Where cells are fitted: workers of this machine, of a scheduler that is there, or jobs of SLURM. All by Dask."""

import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mrsds_ppl.backend.side_by_side import cores
from mrsds_ppl.errors import ConfigError, RunError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy import Cluster

_LOCAL, _SLURM = "local", "slurm"
_PATIENCE = 20.0  # seconds until a scheduler has answered
# A worker is one process of one thread. Restarted where it dies, however large it grows: one machine's memory cannot be
# cut into equal parts, as cells of more latents take more.
_WORKER: dict[str, Any] = {"memory_limit": 0}
_SETTINGS = {
    # So often may workers die of one cell before it is given up.
    "distributed.scheduler.allowed-failures": 3,
    # A worker is given a cell when it has done the one before: one that waited there would be lost with it.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # A fit holds Python's lock for longer than the seconds after which Dask takes a worker for dead.
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.tick.limit": "1h",
}
_LOGGERS = ("distributed", "tornado.application", "asyncio", "bokeh")


def check_scheduler(scheduler: str, workers: int | None) -> None:
    """Raise ConfigError where there is no such scheduler, or a package for it is missing; nothing is started."""
    address = "://" in scheduler
    if not address and scheduler not in (_LOCAL, _SLURM):
        raise ConfigError(
            f"--scheduler: found {scheduler!r}; allowed: {_LOCAL}, {_SLURM}, or the address of a Dask scheduler, such "
            "as tcp://10.0.0.1:8786"
        )
    for package in ("distributed", *(["dask_jobqueue"] if scheduler == _SLURM else [])):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"a sweep needs the package {package}: pip install 'mrsds-ppl[cluster]'")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers: found {workers}; allowed: a whole number of at least 1")
    if address and workers is not None:
        raise ConfigError(f"--workers: found {workers}, but the scheduler at {scheduler} has workers of its own")
    if scheduler == _SLURM and workers is None:
        raise ConfigError("--workers: found nothing; with --scheduler slurm say how many jobs may run side by side")


@contextmanager
def connected(scheduler: str, workers: int | None, tasks: int, say: Callable[[str], None]) -> Iterator["Client"]:
    """A client of workers of one process and one thread each, which are ended with the block where it began them.

    Args:
        scheduler: see :func:`check_scheduler`.
        workers: how many; by default as many as this machine has cores.
        tasks: how many cells there are to fit, of which each needs one.
        say: prints a line.

    Raises:
        ConfigError, RunError: no scheduler answers, or SLURM's settings are not complete.
    """
    import dask
    from distributed import Client

    from mrsds_ppl.sweeps.worker import OneCore

    with ExitStack() as ends:
        ends.enter_context(_quiet())
        ends.enter_context(dask.config.set(_SETTINGS))
        core_of: dict[str, int] = {}
        if scheduler == _LOCAL:
            given = cores()
            count = min(workers or len(given), tasks)
            core_of = {str(number): given[number % len(given)] for number in range(count)}
            where: Cluster | str = ends.enter_context(_local(count))
            say(f"{count} {'worker' if count == 1 else 'workers'} on {len(given)} cores of this machine")
        elif scheduler == _SLURM:
            where = ends.enter_context(_slurm(min(workers or 1, tasks)))
            say(f"up to {min(workers or 1, tasks)} jobs of SLURM")
        else:
            where = scheduler
            say(f"workers of the scheduler at {scheduler}")
        try:
            client = ends.enter_context(Client(where, set_as_default=False, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise RunError(
                f"--scheduler {scheduler}: no scheduler answers there ({error}). Start one with: dask scheduler, and "
                "workers with: dask worker ADDRESS --nthreads 1"
            ) from None
        try:
            client.register_plugin(OneCore(core_of))
        except ImportError as error:
            raise RunError(
                f"--scheduler {scheduler}: its workers lack a package ({error}). Install mrsds-ppl[cluster] where they "
                "run"
            ) from None
        yield client


@contextmanager
def _local(count: int) -> Iterator["Cluster"]:
    """Workers of this machine, each of which ends with this process, however that ends."""
    from distributed import LocalCluster

    with ExitStack() as ends:
        ends.enter_context(_same_environment())
        # All the time, as one that died is begun again.
        ends.enter_context(_without_main())
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            silence_logs=logging.CRITICAL,
            **_WORKER,
        )
        with cluster:
            try:
                yield cluster
            except BaseException:
                # Asked to close, a worker would end the cell that it is at first, which may take an hour.
                for worker in cluster.workers.values():
                    if worker.pid is not None:
                        with suppress(ProcessLookupError):
                            os.kill(worker.pid, signal.SIGKILL)
                raise


@contextmanager
def _slurm(jobs: int) -> Iterator["Cluster"]:
    """Jobs of SLURM with one worker each; one that ends, as at its time limit, is followed by another."""
    import dask
    from dask_jobqueue import SLURMCluster

    if dask.config.get("jobqueue.slurm.memory", None) is None:
        raise ConfigError(
            "--scheduler slurm: found no memory of a job. Say what a job needs in ~/.config/dask/jobqueue.yaml: "
            "jobqueue: {slurm: {memory: 8GB, walltime: '12:00:00', queue: NAME}}"
        )
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        python=sys.executable,
        job_script_prologue=["export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"],
        # No page; its address is any free port all the same, since others may have pages of theirs.
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
    )
    with cluster:
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        yield cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own words, such as of workers that come and go, are not for the user."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _same_environment() -> Iterator[None]:
    """What Dask sets for its workers in the environment of this process goes with them."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that begin in the block do not run the user's script again, as multiprocessing has it otherwise."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), main.__spec__
    try:
        main.__file__, main.__spec__ = None, None
        yield
    finally:
        main.__file__, main.__spec__ = file, spec
