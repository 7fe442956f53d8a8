"""Signals that end a run (Ctrl-C, SIGTERM), held back where an exception would leave processes or files astray."""

import signal
import threading
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Context in which the signals of `ENDING` are noted only, and do what they did before where it is `open`.

    A signal that came meanwhile takes effect at the next opening, else at the end of the context.  Only handlers
    written in Python are replaced, and only by the main thread, the one in which they run.
    """

    def __init__(self):
        self._handlers = {}
        self._noted = None
        self._open, self._over = False, True

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._receive)
        self._over = False
        return self

    def __exit__(self, kind, error, trace):
        self._over = True
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if not (kind and issubclass(kind, KeyboardInterrupt)):
            self._act()

    @contextmanager
    def open(self):
        """Let signals through, the first one only: what follows its exception is not disturbed."""
        self._open = True
        try:
            self._act()
            yield
        finally:
            self._open = False

    def _receive(self, number, frame):
        # Once it is over, a handler that a signal kept from being put back passes everything on.
        if self._over:
            self._handlers[number](number, frame)
            return
        self._noted = number
        if self._open:
            self._open = False
            self._act()
            self._open = True  # The handler raised nothing.

    def _act(self):
        number, self._noted = self._noted, None
        if number is not None:
            self._handlers[number](number, None)
