"""The engine of many processes: the workers of a Dask scheduler relax batches, and Dask looks after the workers.

A worker loads the model once. A batch whose worker dies is given to another one, by Dask itself, up to its limit
(``distributed.scheduler.allowed-failures``). What has reached it is tried one by one when all else is done, and at last
with nothing else under way, because Dask also counts the death of a worker against the batch that waits there: so one
structure that kills workers costs nobody else their result. Only the driver writes; what a worker sends twice is the
result of one future.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from escn_calc.errors import CalculationError, InputError
from escn_calc.records import versions
from escn_calc.screening.cost import Speed, measured_speed
from escn_calc.screening.relaxing import Ended, LostError, Relaxed, Work, batches, relax_tasks

if TYPE_CHECKING:
    from distributed import Client, Future

    from escn_calc.screening.tasks import Task

Answer = TypeVar("Answer")

BATCHES_PER_WORKER = 2
"""That a worker has at a time: the one it relaxes, and the next one."""

PATIENCE_S = 5.0
"""Seconds without a result after which it is made sure that there are workers."""


class NoWorkersWarning(UserWarning):
    """There is a scheduler, but it has no workers."""


@dataclass(frozen=True)
class DaskEngine:
    """The workers of a Dask scheduler.

    Attributes
    ----------
    client : distributed.Client
        Connected to it.
    work : Work
        What relaxes.
    """

    client: Client
    work: Work

    @property
    def words(self) -> str:
        """Where, for people and records."""
        return f"the Dask workers of {self.client.scheduler_info()['address']}"

    @property
    def workers(self) -> int:
        """How many processes relax at the same time; at least one, which may still be waiting for its machine."""
        return max(1, len(self._known_workers()))

    def speed(self, tasks: Sequence[Task]) -> Speed:
        """Time a few evaluations on one of the workers.

        Raises
        ------
        InputError, CheckpointError, DownloadError
            The model cannot be loaded there.
        CalculationError
            A structure cannot be evaluated, or the scheduler is gone.
        """
        return self._ask(_timed, self.work, list(tasks))

    def relax(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Relax tasks and yield each when it has ended, in any order.

        Raises
        ------
        InputError, CheckpointError, DownloadError
            The model cannot be loaded on the workers.
        CalculationError
            The scheduler is gone.
        """
        if not tasks:
            return
        together = self.work.together(self._ask(_device, self.work))
        suspects = yield from self._survivors(
            batches(tasks, together), at_once=lambda: BATCHES_PER_WORKER * self.workers
        )
        suspects = yield from self._survivors(_one_by_one(suspects), at_once=lambda: self.workers)
        suspects = yield from self._survivors(_one_by_one(suspects), at_once=lambda: 1)
        for task in suspects:
            yield Ended(task, LostError("its workers died again and again"), {})

    def _survivors(
        self, divided: Iterable[list[Task]], at_once: Callable[[], int]
    ) -> Generator[Ended, None, list[Task]]:
        """Relax batches, yield each task that has ended, and return those whose workers died too often."""
        from distributed import KilledWorker

        waiting = deque(divided)
        running: dict[Future, list[Task]] = {}
        suspects: list[Task] = []
        while waiting or running:
            while waiting and len(running) < at_once():
                batch = waiting.popleft()
                running[self.client.submit(_relaxed, batch, self.work, pure=False)] = batch
            for future in self._first_done(running):
                batch = running.pop(future)
                try:
                    used, relaxed = _result(future)
                except KilledWorker:
                    suspects += batch
                    continue
                for place, end, unfamiliar in relaxed:
                    yield Ended(batch[place], end, used, unfamiliar)
        return suspects

    def _ask(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Have any worker do something."""
        from distributed import KilledWorker

        future = self.client.submit(function, *arguments, pure=False)
        self._first_done([future])
        try:
            answer: Answer = _result(future)
        except KilledWorker as error:
            raise CalculationError(f"the Dask workers die when they load or use the model: {error}") from error
        return answer

    def _first_done(self, futures: Iterable[Future]) -> list[Future]:
        """Wait until one or more are done, and see to it that there are workers."""
        from distributed import wait

        pending = list(futures)
        while True:
            try:
                return list(wait(pending, timeout=PATIENCE_S, return_when="FIRST_COMPLETED").done)
            except TimeoutError:
                self._call_for_workers()
            except CancelledError as error:
                raise _gone(error) from error

    def _call_for_workers(self) -> None:
        """Start workers of this machine again whose nannies have given up; wait for those of other machines."""
        cluster = self.client.cluster
        if cluster is not None:
            cluster.scale(len(cluster.worker_spec))
        elif not self._known_workers():
            warnings.warn(f"{self.words}: there are none; waiting for some to come", NoWorkersWarning, stacklevel=2)

    def _known_workers(self) -> dict[str, Any]:
        known = self.client.scheduler_info(n_workers=-1)
        if "workers" not in known:
            raise _gone(None)
        workers: dict[str, Any] = known["workers"]
        return workers


def _one_by_one(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    return ([task] for task in tasks)


def _relaxed(tasks: list[Task], work: Work) -> tuple[dict[str, str], list[Relaxed]]:
    """On a worker: relax a batch."""
    _check_worker()
    return versions(), list(relax_tasks(tasks, work))


def _timed(work: Work, tasks: list[Task]) -> Speed:
    """On a worker: time a few evaluations."""
    _check_worker()
    potential = work.load()
    return measured_speed(potential, tasks, work.together(potential.device))


def _device(work: Work) -> str:
    """On a worker: load the model, and say where it is."""
    _check_worker()
    return work.load().device


def _check_worker() -> None:
    """Refuse to share a device or processors with other batches of the same worker."""
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if threads > 1:
        raise InputError(
            f"a Dask worker has {threads} threads, so that it would relax {threads} batches at a time on one device; "
            "start workers with --nthreads 1"
        )


def _result(future: Future) -> Any:
    """Return what a worker returned, or raise what it raised."""
    try:
        return future.result()
    except (CancelledError, OSError) as error:
        raise _gone(error) from error
    finally:
        future.release()


def _gone(error: BaseException | None) -> CalculationError:
    return CalculationError(
        f"the Dask scheduler is gone{'' if error is None else f' ({type(error).__name__}: {error})'}"
    )
