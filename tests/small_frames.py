"""What the tests of ObservationManager share: small FITS files with any cards."""

from utils.observation_manager import ObservationManager


def frame(path, shape=(2, 3), **cards):
    """A FITS file of zeros, bias at -10 degC unless cards say otherwise; a card None is left out."""
    given = {"IMAGETYP": "Bias Frame", "TEMP": -10.0, "EXPTIME": 0.0, "FILTER": "R"}
    given |= {key.replace("_", "-") if key == "CCD_TEMP" else key: value for key, value in cards.items()}
    lines = [
        "SIMPLE  =                    T",
        "BITPIX  =                   16",
        "NAXIS   =                    2",
    ]
    lines += [f"NAXIS1  = {shape[1]:20d}", f"NAXIS2  = {shape[0]:20d}"]
    for key, value in given.items():
        if isinstance(value, bool):
            value = "T" if value else "F"
        elif isinstance(value, str):
            value = f"'{value}'"
        elif isinstance(value, complex):
            value = f"({value.real}, {value.imag})"
        if value is not None:
            lines.append(f"{key:8s}= {value}")
    text = "".join(line.ljust(80) for line in [*lines, "END"])
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytes(-(-shape[0] * shape[1] * 2 // 2880) * 2880)
    path.write_bytes(text.ljust(-(-len(text) // 2880) * 2880).encode() + data)
    return path


def load(base, **options):
    return ObservationManager(base, **options).load_and_organize()


def names(entries):
    return [entry["original_name"] for entry in entries]
