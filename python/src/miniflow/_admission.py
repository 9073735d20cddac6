"""Who may submit: a bound on the tasks of an engine that wait to be started."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._core import Core, Sink


class Admission:
    """Keeps the tasks that wait to be started within `size`."""

    def __init__(self, core: Core, size: int, flying: Callable[[], int]) -> None:
        """`flying` says how many tasks were let in and have not ended, as far as is known here."""
        self.core = core
        self.size = size
        #: Held by who submits, until what he submits is among `flying`. Reentrant: a look at the engine
        #: settles tasks, which may call back into a program that submits.
        self.lock = threading.RLock()
        self._flying = flying
        # Tasks that may come in before anybody has to look again: those that wait only become fewer.
        self._room = 0

    def admit(self) -> bool:
        """Whether one more task may come in. The caller holds the lock."""
        if self._room <= 0:
            self._room = self._look()
            if self._room <= 0:
                return False
        self._room -= 1
        return True

    def look_again(self) -> None:
        """Tasks have come in by another way: there is less room than was thought. The caller holds the
        lock."""
        self._room = 0

    def waiting(self) -> int:
        """Tasks that wait to be started."""
        running = sum(row.running for row in self.core.workers())
        return max(0, self._flying() - running)

    def _look(self) -> int:
        while True:
            flying = self._flying()
            if flying < self.size:
                return self.size - flying
            if self.core.drive(0):
                continue
            waiting = self.waiting()
            if waiting < self.size:
                return self.size - waiting
            # What ended since it was last looked for does not run, but does not wait either.
            if not self.core.drive(0) and flying == self._flying():
                return 0


def cancel_unstarted(core: Core, sinks: Iterable[Sink]) -> None:
    """Cancels tasks unless they run; given in the order of their submission."""
    # The last first: workers take the first ones meanwhile.
    for sink in reversed(list(sinks)):
        if sink.settled or core.cancel(sink):
            continue
        state = core.state(sink)
        if state is not None and not state.running:
            core.interrupt(sink)
