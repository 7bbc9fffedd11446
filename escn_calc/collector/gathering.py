"""Requests of several threads, gathered into batches.

A *member* asks for evaluations; it belongs to one calculator. Its thread waits until the answer is there, so a member
has one request at a time. One thread of the collector evaluates. It takes all requests that wait as soon as no member
is *missing*, which is every member without a request except

- those whose thread waits for the request of another member: one thread works with several calculators in turn;
- those that have missed ``MISSES`` batches in a row since their last request: of a run that has ended or pauses, or
  that nobody began.

A batch is not delayed for missing members by more than ``patience`` since anything has happened, a request or the end
of an evaluation. So nobody waits for ever, whatever the others do. Who shares a batch changes results by rounding only.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

from escn_calc.errors import CalculationError, ESCNError, renumbered

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.potential import Potential, Prediction

MISSES = 2
"""One may be an accident, such as a thread that the system held up."""


@dataclass(eq=False)
class Member:
    """One that asks for evaluations.

    Attributes
    ----------
    number : int
        Place within a batch, so that the same members give the same batch whoever came first.
    thread : Thread
        Of its last request; of its creation before there is one.
    missed : int
        Batches evaluated without it, although it was waited for, since its last request.
    """

    number: int
    thread: threading.Thread
    missed: int = 0


@dataclass(frozen=True, eq=False)
class Request:
    """Structures of one member, and the answer it waits for."""

    member: Member
    structures: list[Atoms]
    answer: Future[list[Prediction | ESCNError]] = field(default_factory=Future)


class Collector:
    """Evaluates the requests of its members together, in a thread of its own.

    Parameters
    ----------
    potential : Potential
        What evaluates.
    patience : float
        Longest delay of a batch for a missing member, in s.
    """

    def __init__(self, potential: Potential, patience: float) -> None:
        self.potential = potential
        self.device_lock = threading.Lock()
        """Held by whoever uses the potential."""
        self._patience = patience
        self._changed = threading.Condition()
        self._members: WeakSet[Member] = WeakSet()
        self._number_of_members = 0
        self._waiting: list[Request] = []
        self._quiet_since = 0.0
        self._errors: dict[threading.Thread, Exception] = {}
        self._ended = self._ended_by_exception = False
        self._thread = threading.Thread(target=self._serve, name="escn_calc collector", daemon=True)

    def start(self) -> None:
        """Begin to evaluate."""
        self._thread.start()

    def join(self) -> Member:
        """Return a new member. It leaves when nobody refers to it any more."""
        with self._changed:
            member = Member(self._number_of_members, threading.current_thread())
            self._number_of_members += 1
            self._members.add(member)
            return member

    def retire(self, member: Member) -> None:
        """Do not wait for a member until it asks again."""
        with self._changed:
            member.missed = MISSES
            self._changed.notify()

    def evaluate(self, member: Member, structures: list[Atoms]) -> list[Prediction | ESCNError]:
        """Wait for the others, then return the prediction or the error of each structure.

        Raises
        ------
        CalculationError
            The evaluation of the whole batch failed, or the collector has ended.
        SystemExit
            An exception has left the ``with`` block: ends a thread as Python does, without a traceback.
        """
        thread = threading.current_thread()
        request = Request(member, structures)
        with self._changed:
            if self._ended:
                raise self._refusal(thread)
            self._errors.pop(thread, None)  # it has lived on, so somebody caught it
            member.thread, member.missed = thread, 0
            self._waiting.append(request)
            self._quiet_since = monotonic()
            self._changed.notify()
        try:
            return request.answer.result()
        finally:
            self._withdraw(request)

    def remember(self, error: Exception) -> None:
        """Keep an error that is raised in the current thread for :meth:`check`."""
        with self._changed:
            self._errors[threading.current_thread()] = error

    def check(self) -> None:
        """Raise if an error of a member ended a thread, as no one else would know.

        Raises
        ------
        CalculationError
            With the error as its cause.
        """
        with self._changed:
            errors = list(self._errors.values())
        for error in errors:
            if _ended_a_thread(error):
                raise CalculationError(f"an evaluation failed in a thread that ended by it: {error}") from error

    def end(self, by_exception: bool) -> None:
        """Let everybody go who waits, refuse further requests, and wait for the evaluation that is under way."""
        with self._changed:
            self._ended, self._ended_by_exception = True, by_exception
            waiting, self._waiting = self._waiting, []
            self._changed.notify()
        for request in waiting:
            request.answer.set_exception(self._refusal(request.member.thread))
        if self._thread.is_alive():  # Ctrl-C may come before it has started; then it ends by itself
            self._thread.join()

    def _serve(self) -> None:
        while batch := self._next_batch():
            try:
                answers = self._evaluate(batch)
            except BaseException as error:  # carried to those who wait; they would wait for ever
                self._quiet_since = monotonic()
                for request in batch:
                    request.answer.set_exception(_failure(error))
            else:
                self._quiet_since = monotonic()
                for request, answer in zip(batch, answers, strict=True):
                    request.answer.set_result(answer)

    def _next_batch(self) -> list[Request]:
        """Wait for a batch, in the order of its members; empty after the end."""
        with self._changed:
            while not self._ended:
                missing = self._missing()
                remaining = self._quiet_since + self._patience - monotonic()
                if self._waiting and (remaining <= 0 or not missing):
                    for member in missing:
                        member.missed += 1
                    break
                self._changed.wait(remaining if self._waiting else None)
            batch, self._waiting = self._waiting, []
            return sorted(batch, key=lambda request: request.member.number)

    def _missing(self) -> list[Member]:
        """Members to wait for, as said above."""
        here = {request.member for request in self._waiting}
        parked = {member.thread for member in here}
        return [
            member
            for member in self._members
            if member not in here and member.thread not in parked and member.missed < MISSES
        ]

    def _evaluate(self, batch: list[Request]) -> list[list[Prediction | ESCNError]]:
        """Evaluate in one call; errors call structures by their place in their own request."""
        with self.device_lock:
            found = self.potential.evaluate_each([atoms for request in batch for atoms in request.structures])
        answers = iter(found)
        return [
            [
                renumbered(answer, place) if isinstance(answer, ESCNError) else answer
                for place, answer in enumerate(islice(answers, len(request.structures)))
            ]
            for request in batch
        ]

    def _withdraw(self, request: Request) -> None:
        """Take back a request whose thread was interrupted."""
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)

    def _refusal(self, thread: threading.Thread) -> BaseException:
        if self._ended_by_exception and thread is not threading.main_thread():
            return SystemExit("the 'with batched(...)' block was left by an exception")
        return CalculationError("a batched calculator was used after its 'with batched(...)' block; use it inside")


def _failure(error: BaseException) -> CalculationError:
    """Make an error of its own for each thread, because a traceback grows where it is raised."""
    failure = CalculationError(f"the evaluation of a batch failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _ended_a_thread(error: Exception) -> bool:
    """Whether nobody caught an error: its traceback begins where it was caught, else in the code that runs threads."""
    start = error.__traceback__
    return start is not None and start.tb_frame.f_globals.get("__name__") == threading.__name__
