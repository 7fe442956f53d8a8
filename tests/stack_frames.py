"""What the tests of the stack engine share: the rule in plain float64, and FITS frames of any stored type."""

import numpy as np
from astropy.io import fits

from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.kernels.combine import NO_DATA, SATURATED, UNSTABLE, CombineRule

RULE = CombineRule("sigclip", 4.0, 4.0 + 1 / 12)


def samples(rng, n, shape, level=1000.0, sigma=2.0):
    """Integers with a pattern, cosmic hits, a telegraph pixel and a hot one, (n, ny, nx)."""
    stack = level + rng.normal(0, 5, shape) + rng.normal(0, sigma, (n, *shape))
    hits = rng.random(stack.shape) < 0.02
    stack[hits] += rng.uniform(20, 3000, hits.sum())
    stack[: n // 3, 0, 0] += 40
    stack[:, -1, -1] += rng.normal(4000, 60, n)
    return np.rint(stack)


def combined(images, rule=RULE, offsets=None, scales=None, pedestal=None, factor=None, **options):
    """Frames on disk combined by the stack engine."""
    with FrameStack(images, **options) as stack:
        return stack.combine(rule, offsets, scales, pedestal, factor)


def reference(stack, rule):
    """Value, variance, count and flags of each column by the documented rule, in float64."""
    out = [_one(np.asarray(column, np.float64), rule) for column in stack.T]
    value, variance, n_used, flags = (np.array(part) for part in zip(*out, strict=True))
    return value, variance, n_used, flags


def _one(x, rule):
    total = x.size
    x = x[~np.isnan(x)]
    if x.size == 0:
        return np.nan, np.nan, 0, NO_DATA
    whole, full = np.median(x), np.isposinf(x) | (x >= rule.saturation)
    x, flags = x[~full], SATURATED if full.sum() > max(1, total // 10) else 0
    n = x.size
    if n == 0:
        return rule.saturation, np.nan, 0, SATURATED
    centre = np.median(x)
    used = np.ones(n, bool)
    if rule.method != "mean" and n >= 3:
        deviation = np.abs(x - centre)
        noise = rule.floor_variance + rule.inverse_gain * max(centre - rule.zero_level, 0.0)
        scale = max(1.4826 * np.median(deviation), np.sqrt(noise))
        limit = rule.clip_sigma * scale + 0.5 * rule.step
        used = deviation <= limit
        two_hits = (~used).sum() == 2 and np.ptp(x[~used]) > limit
        if n - used.sum() > max(1, n // 10) and not two_hits:
            used[:] = True
            flags |= UNSTABLE
    kept = x[used]
    variance = kept.var(ddof=1) if kept.size > 1 else np.nan
    if rule.method == "median":
        return (centre if flags & SATURATED else whole), variance, kept.size, flags
    return kept.mean(), variance, kept.size, flags


def write_fits(path, stored, *, bzero=0.0, bscale=1.0, blank=None, compress=None):
    """Write stored samples as they are, with the cards that give them their meaning; returns the FitsImage.

    compress : None, 'gz' (by the name) or 'fz' (tile-compressed, lossless).
    """
    hdus = [fits.PrimaryHDU(stored)]
    if compress == "fz":
        kind = "RICE_1" if stored.dtype.kind in "iu" else "GZIP_2"
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(stored, compression_type=kind, quantize_level=0.0)]
    hdus[-1].header["BZERO"], hdus[-1].header["BSCALE"] = bzero, bscale
    if blank is not None:
        hdus[-1].header["BLANK"] = blank
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return scan_header(str(path))


def write_uint16(path, samples, compress=None):
    """Write samples 0 to 65535 as cameras do: BITPIX 16 with BZERO 32768."""
    stored = (np.asarray(samples).astype(np.int32) - 32768).astype(np.int16)
    return write_fits(path, stored, bzero=32768, compress=compress)
