"""Signals that ask training to stop between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignals:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second has its usual effect.

    Only the main thread can receive signals; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._usual: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._usual[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._usual = {}
