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


def run_local(configs: Sequence[RunConfig], execution: Execution, study: str, processes: int, report: Report) -> None:
    """Execute runs and report the state of each as it ends.

    Args:
        configs: The runs, in the order in which they start.
        execution: Where and how.
        study: Name of the study.
        processes: Number of worker processes; 1 works in this process.
        report: Called with every run and its state.
    """
    if processes <= 1:
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
        suspects, waiting = _pool(waiting, quiet, study, processes, report)
        for config in suspects:
            # A dead worker takes its pool with it. Alone, each of the runs it held shows whether it was the one.
            if _pool([config], quiet, study, 1, report)[0]:
                directory = RunDirectory(execution.runs / config.directory)
                directory.set_status("failed", "its worker process died (out of memory?)")
                report(config, "failed")


def _pool(
    configs: Sequence[RunConfig], execution: Execution, study: str, processes: int, report: Report
) -> tuple[list[RunConfig], list[RunConfig]]:
    """Run a pool until it is done or a worker dies; return the runs it held then, and those that had not begun."""
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    previous = signal.signal(signal.SIGTERM, _terminate)
    futures: dict[Future[str], RunConfig] = {}
    queue = list(configs)
    try:
        while queue or futures:
            while queue and len(futures) < processes:
                futures[pool.submit(_work, queue[0], execution, study)] = queue[0]
                queue.pop(0)
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                state = future.result()
                report(futures.pop(future), state)
        return [], []
    except BrokenProcessPool:
        return list(futures.values()), queue
    finally:
        # Python has no public way to stop running workers; without this they would outlive an interrupt.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        signal.signal(signal.SIGTERM, previous)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
