"""What files in JSON may hold: numbers that are none of ours, and keys that are no words."""

import sys
from numbers import Real


def is_number(value):
    """Tell whether a value is a finite number that a float can hold; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def listed(names):
    """Keys for a message, on one line."""
    return ", ".join(name if name.isprintable() else repr(name) for name in names)
