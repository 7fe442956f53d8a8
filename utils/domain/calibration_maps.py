"""Bias and dark maps by temperature (and exposure) from plain lists of files, for notebooks and older scripts."""

import math

from utils.domain.frame_groups import group_entries
from utils.errors import InputError
from utils.fits_io.frame_sample import sample_group
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.kernels import adu_scale, noise
from utils.kernels.combine import CombineRule

TEMPERATURE_TOLERANCE = 0.5


def generate_bias_maps(entries):
    """Combine bias frames of each temperature.

    entries : list of mappings with original_path and temperature [degC].
    Returns {temperature rounded to 0.1: (ny, nx) float32 [product ADU]}; frames within half a degree are one group.
    Raises InputError for a file that cannot be read, and for shapes that differ.
    """
    groups = _groups(entries, exposure=None)
    return {key[0]: _combine(*rest) for key, *rest in _keyed(groups)}


def generate_dark_maps(entries):
    """Combine dark frames of each temperature and exposure; nothing is subtracted.

    entries : list of mappings with original_path, temperature [degC] and exposure_time [s].
    Returns {(temperature, exposure), both rounded to 0.1: (ny, nx) float32 [product ADU]}.  Exposures that rounding
    would make one keep their full value.
    """
    return {key: _combine(*rest) for key, *rest in _keyed(_groups(entries, "exposure_time"))}


def find_closest_dark(temp, exp_time, maps, temp_tolerance=1.0, exp_tolerance=0.1):
    """Pick the dark map nearest in temperature [degC] and exposure [s] within the tolerances, or None.

    maps : as `generate_dark_maps` returns.  Distances are counted in tolerances.
    """
    best, chosen = math.inf, None
    for (temperature, exposure), value in maps.items():
        apart = abs(temperature - temp), abs(exposure - exp_time)
        if apart[0] > temp_tolerance + 1e-9 or apart[1] > exp_tolerance + 1e-9:
            continue
        distance = (apart[0] / max(temp_tolerance, 1e-9)) ** 2 + (apart[1] / max(exp_tolerance, 1e-9)) ** 2
        if distance < best:
            best, chosen = distance, value
    return chosen


def _groups(entries, exposure):
    if not entries:
        return []
    full = []
    for entry in entries:
        missing = [
            key for key in ("original_path", "temperature", exposure) if key and entry.get(key) is None
        ]
        if missing:
            raise InputError(f"{entry.get('original_path')}: got no {', '.join(missing)}, expected both")
        own = {"timestamp": None, "exposure": None if exposure is None else float(entry[exposure])}
        own |= {"original_path": str(entry["original_path"]), "temperature": float(entry["temperature"])}
        full.append(own)
    images = {entry["original_path"]: scan_header(entry["original_path"]) for entry in full}
    return group_entries(full, images, temp_tolerance=TEMPERATURE_TOLERANCE, by_exposure=exposure is not None)


def _keyed(groups):
    """Yield key, group, ADU scale (one for all) and noise of a sample."""
    if not groups:
        return
    samples = [sample_group(group.images, 1) for group in groups]
    for group, sample in zip(groups, samples, strict=True):
        for index, fault in sample.faults.items():
            raise InputError(f"{group.images[index].path}: {fault}")
    scale = float(adu_scale.shared_factor(vote for sample in samples for vote in sample.votes))
    plain = [(round(g.temperature, 1) + 0.0, round(g.exposure, 1) + 0.0) for g in groups]
    for key, group, sample in zip(plain, groups, samples, strict=True):
        # Two groups on one key would hide one another.
        exact = (key[0], group.exposure) if plain.count(key) > 1 else key
        yield exact, group, scale, noise.pooled_scatter(sample.rows / scale) if len(group) > 1 else 0.0


def _combine(group, scale, sigma):
    step = 0.0 if any(image.bitpix < 0 for image in group.images) else 1.0
    with FrameStack(group.images, adu_scale=scale) as stack:
        return stack.combine(CombineRule(floor_variance=sigma * sigma, step=step)).value
