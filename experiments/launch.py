"""Many runs on one machine: a pool of processes, one torch thread each, fed only with what is missing."""

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import FrameType

from training.config import Execution, RunConfig
from training.directory import RunDirectory

Report = Callable[[RunConfig, str], None]


def _work(config: RunConfig, execution: Execution, study: str) -> str:
    """Execute one run in a worker; imports torch there, once."""
    from experiments.runner import execute
    from training.errors import UserError
    from training.run import Interrupted

    try:
        return execute(config, execution, study)
    except Interrupted:
        return "interrupted"
    except UserError as error:  # the directory itself is broken, and left as it is
        return f"invalid: {error}"


def run_local(
    configs: Sequence[RunConfig], execution: Execution, study: str, processes: int, report: Report
) -> None:
    """Execute runs and report the state of each as it ends.

    Args:
        configs: The runs, in the order in which they start.
        execution: Where and how.
        study: Name of the study.
        processes: Number of worker processes; 1 works in this process.
        report: Called with every run and its state.
    """
    if processes <= 1 or len(configs) <= 1:
        for config in configs:
            state = _work(config, execution, study)
            report(config, state)
            if state == "interrupted":
                return
        return
    quiet = dataclasses.replace(execution, progress=False)
    os.environ.update(OMP_NUM_THREADS=str(execution.threads), MKL_NUM_THREADS=str(execution.threads))
    waiting = list(configs)
    while waiting:
        waiting = _pool(waiting, quiet, study, processes, report)


def _pool(
    configs: list[RunConfig], execution: Execution, study: str, processes: int, report: Report
) -> list[RunConfig]:
    """Run one pool until it is done or a worker dies; return what has still to run."""
    left = list(configs)
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        futures: dict[Future[str], RunConfig] = {}
        queue = iter(configs)
        while True:
            while len(futures) < processes and (config := next(queue, None)) is not None:
                futures[pool.submit(_work, config, execution, study)] = config
            if not futures:
                return []
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                config = futures.pop(future)
                report(config, future.result())
                left.remove(config)
    except BrokenProcessPool:
        died = [c for c in left[:processes] if RunDirectory(execution.runs / c.directory).status()["state"] == "running"]
        for config in died or left[:1]:
            reason = "its worker process died (out of memory?)"
            RunDirectory(execution.runs / config.directory).set_status("failed", reason)
            report(config, "failed")
            left.remove(config)
        return left
    finally:
        # Python has no public way to stop running workers; without this they would outlive an interrupt.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        signal.signal(signal.SIGTERM, previous)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
