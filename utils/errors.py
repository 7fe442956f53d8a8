"""Errors that a user can mend: each is one line that names the file, what was got and what was expected."""


class CalibrationError(Exception):
    """Base of all errors that end a command without a traceback; ``status`` is its exit status."""

    status = 2


class InputError(CalibrationError):
    """The input data cannot be used."""


class OptionError(CalibrationError):
    """The options cannot be used, alone or together."""


class ScarceError(CalibrationError):
    """The machine lacks what the work needs: memory, open files, processes."""

    status = 1


class OutputError(CalibrationError):
    """A product could not be written (full disk, folder vanished)."""

    status = 1
