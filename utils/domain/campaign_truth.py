"""The truth of a simulated campaign, as files: the sensor's maps as FITS, and truth.json."""

import io

from utils.fits_io.atomic import write_json
from utils.version import __version__


def write_truth(folder, sensor, scenes, told):
    """Write maps and truth.json into the new folder.

    sensor : Sensor.   scenes : CampaignScenes.   told : mapping for truth.json.
    """
    folder.mkdir()
    for name, (data, unit, meaning) in _maps(sensor, scenes).items():
        _write_map(folder, name, data, unit, meaning, sensor.spec.dark_t_ref)
    write_json(folder / "truth.json", {"program": f"simulate_campaign {__version__}", **told})


def _maps(sensor, scenes):
    """{name: (map, unit, meaning)}: of the sensor, of the lamps, and of each session in which something changed."""
    at = f"at {sensor.spec.dark_t_ref:g} degC and 1 s"
    meanings = {
        "bias_a": ("adu", "bias at 0 degC, session shift apart"),
        "bias_b": ("adu/K", "slope of the bias"),
        "read_noise_map": ("adu", "1 sigma, quantisation apart"),
        "dark_a": ("adu/s", f"A: dark rate {at}, glow apart"),
        "dark_b": ("1/K", "B: exponent of temperature"),
        "dark_gamma": ("", "gamma: exponent of exposure, of the rate"),
        "glow": ("adu/s", "amplifier glow"),
        "response": ("", "pixel response: PRNU, dust, defects"),
        "illumination": ("", "vignetting"),
        "telegraph_step": ("adu", "between the two levels of telegraph pixels"),
        **dict.fromkeys(("hot", "warm", "telegraph", "dead", "low_qe"), ("", "1: such a pixel")),
    }
    # Maps that say nothing where their term is off.
    if sensor.flat_b.any():
        meanings["flat_b"] = ("1/K", "change of response with temperature")
    if sensor.flat_c.any():
        meanings["flat_c"] = ("1/s", "change of response with exposure")
    if sensor.spec.full_well_spread > 0:
        meanings["full_well_map"] = ("electron", "full well")
    maps = {name: (getattr(sensor, name), *words) for name, words in meanings.items()}
    for name, pattern in scenes.patterns.items():
        maps[f"led_{name}"] = (pattern, "", "pattern of the lamps, mean 1")
    parts = {
        "film": ("", "light lost in films"),
        "dust": ("", "transmission of new dust"),
        "damage": ("", "factor on the response"),
        "dark": ("adu/s", f"change of A {at}"),
    }
    for session, state in enumerate(scenes.states):
        for part, words in parts.items():
            if getattr(state, part) is not None:
                maps[f"{part}_S{session}"] = (getattr(state, part), *words)
    return maps


def _write_map(folder, name, data, unit, meaning, t_ref):
    from astropy.io import fits

    hdu = fits.PrimaryHDU(data.astype("uint8" if data.dtype == bool else "float32"))
    product = name.removesuffix("_map")
    hdu.header["PRODTYPE"] = (f"TRUTH_{product.upper()}", meaning)
    hdu.header["BUNIT"] = unit
    hdu.header["T_REF"] = (t_ref, "[degC] temperature of dark_a")
    hdu.header["GAMMADEF"] = ("rate", "a linear dark has gamma = 0")
    hdu.header["PROGRAM"] = (f"simulate_campaign {__version__}", "calibration pipelines")
    # By way of memory: astropy's own write to a full disk loses the error number that tells so.
    buffer = io.BytesIO()
    hdu.add_checksum(when="at creation")  # a date here would make every file new
    hdu.writeto(buffer)
    (folder / f"{product}.fits").write_bytes(buffer.getbuffer())
