"""Stopping politely: an interrupt or a termination signal ends the run after the step it is in."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopRequest:
    """Whether a signal asked this process to stop.

    Attributes:
        asked: set by the signal; the loop looks at it between steps, together with all other processes.
    """

    asked: bool = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block the first SIGINT and the first SIGTERM only ask; a second one does what it did before.

        Python takes signals in the main thread only: elsewhere the block changes nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def heed(number: int, _frame: object) -> None:
            self.asked = True
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, heed)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
