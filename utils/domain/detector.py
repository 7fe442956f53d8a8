"""The camera in numbers: detector.json, written by ``--mode characterize`` and read by ``--detector``."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from utils.domain.json_values import is_number
from utils.errors import InputError
from utils.fits_io.atomic import write_json

FORMAT, VERSION = "detector", 1
_MEASURED = ("gain", "read_noise", "full_well")


@dataclass(frozen=True)
class Measured:
    """A number with its error (1 sigma, None where unknown) and unit."""

    value: float
    error: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Detector:
    """What is known of a camera; levels in product ADU.

    gain [e-/adu], read_noise [adu], full_well [adu above bias]: `Measured`, None where the frames did not tell it; what is
    loaded has a gain.
    adu_scale : stored units per product ADU.  camera : cards that tell the camera and its setting (INSTRUME, GAIN ...).
    more : everything else of the file (linearity, prnu, dsnu, ...), as plain values.
    path : where it was read, or None.
    """

    gain: Measured | None
    adu_scale: float = 1.0
    read_noise: Measured | None = None
    full_well: Measured | None = None
    camera: dict = field(default_factory=dict)
    more: dict = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def load(cls, path):
        """Read a detector.json.

        Raises InputError where the file is no such file, or lacks or spoils what every reader needs: gain, aduscale.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}, expected a detector.json") from error
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({error}), expected a detector.json") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f'{path}: got no "format": "{FORMAT}", expected a detector.json')
        if content.get("version") != VERSION:
            raise InputError(f"{path}: version {content.get('version')!r}, expected {VERSION}")
        del content["format"], content["version"]
        numbers = {name: _measured(path, name, content.pop(name, None)) for name in _MEASURED}
        if numbers["gain"] is None:
            raise InputError(f'{path}: got no "gain", expected {{"value": e-/adu, "error": ...}}')
        scale = content.pop("aduscale", None)
        if not _positive(scale):
            raise InputError(f"{path}: aduscale {scale!r}, expected a number above 0")
        camera = content.pop("camera", {})
        if not isinstance(camera, dict):
            raise InputError(f"{path}: camera {camera!r}, expected an object")
        return cls(adu_scale=float(scale), camera=camera, more=content, path=path, **numbers)

    def write(self, path):
        """Write as detector.json, atomically; the numbers every reader needs come first."""
        content = {"format": FORMAT, "version": VERSION, "camera": self.camera, "aduscale": self.adu_scale}
        for name in _MEASURED:
            number = getattr(self, name)
            content[name] = None if number is None else asdict(number)
        write_json(path, content | {key: value for key, value in self.more.items() if key not in content})

    def check_scale(self, adu_scale, what):
        """Refuse frames or products of another ADU scale: all its numbers are in product ADU."""
        if not math.isclose(self.adu_scale, adu_scale):
            raise InputError(
                f"{self.path or 'detector'}: aduscale {self.adu_scale:g}, expected {adu_scale:g} as {what}"
            )


def _positive(value):
    return is_number(value) and value > 0


def _measured(path, name, entry):
    """One number of the file with its error and unit, or None where it is null or absent."""
    if entry is None:
        return None
    if not isinstance(entry, dict) or not _positive(entry.get("value")):
        raise InputError(f'{path}: {name} {entry!r}, expected {{"value": a number above 0, "error": ...}}')
    error = entry.get("error")
    if error is not None and not (_positive(error) or error == 0):
        raise InputError(f"{path}: error of {name} {error!r}, expected a number or null")
    return Measured(
        float(entry["value"]), None if error is None else float(error), str(entry.get("unit", ""))
    )
