"""``batched`` and ``run_each``: many ASE runs of one model, evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, TypeVar

from ase import Atoms

from escn_calc.collector.calculator import BatchedCalculator
from escn_calc.collector.gathering import Collector
from escn_calc.errors import BatchError, InputError
from escn_calc.options import check_potential
from escn_calc.structures import check_is_list

if TYPE_CHECKING:
    from escn_calc.potential import Potential

T = TypeVar("T")

PATIENCE = 0.2
"""s. Threads that only have to start or to move atoms come back sooner, even on a busy machine."""


class Calculators:
    """What ``with batched(potential) as calculators`` gives."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def new(self) -> BatchedCalculator:
        """Return a calculator for one more run."""
        return BatchedCalculator(self._collector)

    def check(self) -> None:
        """Raise if an evaluation failed in a thread that ended by it, without anybody else being told.

        ``ase.mep.NEB(parallel=True)`` is such a case: it goes on with whatever was in memory. Attach this method to the
        optimiser, ``optimizer.attach(calculators.check)``, and the search ends with the step that failed. The end of
        the ``with`` block checks as well.

        Raises
        ------
        CalculationError
            With that of the thread as its cause.
        """
        self._collector.check()


@contextmanager
def batched(potential: Potential, *, patience: float = PATIENCE) -> Iterator[Calculators]:
    """Give concurrent ASE runs calculators whose requests are evaluated together.

    Every run needs a calculator of its own, ``calculators.new()``, and a thread. What uses the calculators has to be
    plain ASE only: ``ase.mep.NEB(images, parallel=True)`` starts a thread for each image and needs nothing else;
    :func:`run_each` starts one for each structure. An exception reaches the run that caused it, and no other. If the
    block is left by an exception, Ctrl-C among them, runs that wait for an evaluation end at once and silently, the
    others with their next request.

    Parameters
    ----------
    potential : Potential
        From :func:`escn_calc.load_potential`.
    patience : float
        Longest time, in s, that the runs which wait are delayed for one that pauses or has ended; twice at most, until
        it asks again. With 0, whatever waits is evaluated. Runs that share a batch or not differ by rounding only.

    Yields
    ------
    Calculators

    Raises
    ------
    InputError
        Not a potential, or not a patience.
    CalculationError
        At the end of the block: as :meth:`Calculators.check`.
    """
    check_potential(potential)
    if not 0 <= patience <= TIMEOUT_MAX:
        raise InputError(f"patience is {patience} s; it must be zero or a positive number")
    collector = Collector(potential, patience)
    try:
        collector.start()
        yield Calculators(collector)
    except BaseException:
        collector.end(by_exception=True)
        raise
    collector.end(by_exception=False)
    collector.check()


def run_each(
    function: Callable[[Atoms], T], structures: Sequence[Atoms], potential: Potential, *, max_active: int = 64
) -> list[T]:
    """Run a function on many structures at the same time, all their evaluations batched.

    Parameters
    ----------
    function : callable
        Called with a copy of each structure, a batched calculator attached, in a thread of its own. Whatever uses
        ASE will do: ``lambda atoms: relax(atoms, atoms.calc, fmax=0.02)``.
    structures : sequence of Atoms
        They are not changed.
    potential : Potential
        From :func:`escn_calc.load_potential`.
    max_active : int
        Largest number of runs at a time; where one ends, the next begins.

    Returns
    -------
    list
        What the function returned for each structure, in their order.

    Raises
    ------
    InputError
        Before any run: not a potential, not a list, a member that is not ``Atoms``, or no positive ``max_active``.
    BatchError
        After all have ended, if some raised an exception; it has the results of the others.
    """
    check_potential(potential)
    check_is_list(structures)
    if max_active < 1:
        raise InputError(f"max_active is {max_active}; it must be 1 or more")
    for index, atoms in enumerate(structures):
        if not isinstance(atoms, Atoms):
            raise InputError(f"structure {index} is of type {type(atoms).__name__}; give ASE Atoms")
    with ThreadPoolExecutor(max_active, thread_name_prefix="run_each") as pool, batched(potential) as calculators:
        try:
            runs = [pool.submit(_run, function, atoms, calculators) for atoms in structures]
            wait(runs)
        except BaseException:  # Ctrl-C: those that have not begun never do
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    errors = {index: error for index, run in enumerate(runs) if (error := run.exception())}
    if errors:
        raise BatchError([None if run.exception() else run.result() for run in runs], errors)
    return [run.result() for run in runs]


def _run(function: Callable[[Atoms], T], atoms: Atoms, calculators: Calculators) -> T:
    own, calculator = atoms.copy(), calculators.new()
    own.calc = calculator
    try:
        return function(own)
    finally:
        calculator.potential.retire()
