"""Read-noise maps of the bias pipeline: pooled over all temperatures, and of each."""

import numpy as np

from utils.application.log import LOGGER
from utils.domain.frame_groups import date_cards
from utils.fits_io.naming import counted
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.kernels import noise
from utils.kernels.pieces import in_pieces

READ_NOISE = "read_noise"
MEDIAN_PIXELS = 1 << 20
"""Pixels, evenly spaced, from which a median is taken."""


def write_group(config, record, name, cards, variance, n_used, pixels, factor, jitter, inputs):
    """Write read_noise_{T}C.fits: the scatter of one group, moderated by the sensor's.

    variance, n_used : of the group's samples.  pixels : `utils.domain.masters.PixelNoise` of the set.
    factor : noise of the group over the reference.  jitter : variance of the frames' levels, which is no read noise
    [ADU^2].  inputs : rows of the INPUTS table.
    """
    prior = (pixels.prior * factor) ** 2
    step = {"lsb": float(cards["LSB"][0]), "common": jitter, "prior_dof": pixels.prior_dof}
    read, error, noisy = np.empty_like(variance), np.empty_like(variance), np.empty(variance.shape, bool)
    for r, e, flag, own, n in in_pieces(read, error, noisy, variance, n_used):
        dof = n.astype(np.float32) - np.float32(1.0)
        moderated, flag[:] = noise.moderate_variance(own, dof, prior, pixels.prior_dof)
        r[:], e[:] = noise.read_noise(moderated, dof, noisy=flag, **step)
    scatter = np.sqrt(variance, out=variance)
    name = f"read_noise_{name}C.fits"
    dq = _quality(noisy, pixels.frozen)
    _write(config, record, name, cards, read, error, scatter, dq, inputs, temperature=cards["TEMP"][0])


def write_pooled(config, record, groups, common, pixels, jitter, inputs):
    """Write read_noise.fits: the scatter pooled over all groups; ``pixels.own`` is used up."""
    images = [image for group in groups for image in group.frames.images]
    temperatures = np.concatenate([group.frames.temperatures for group in groups])
    cards = {
        **header_from_inputs(images),
        "NCOMBINE": (len(images), "frames behind the noise"),
        "CALTYPE": ("BIAS", "kind of the frames"),
        "TEMP": (float(temperatures.mean()), "[degC] mean temperature of the frames"),
        "TEMPSTD": (float(temperatures.std()), "[degC] scatter"),
        "TEMPMIN": (float(temperatures.min()), "[degC] lowest"),
        "TEMPMAX": (float(temperatures.max()), "[degC] highest"),
        "EXPTIME": (groups[0].frames.exposure, "[s] exposure time"),
        **date_cards(np.concatenate([group.frames.times for group in groups])),
        **common,
    }
    name = "read_noise.fits"
    read, error = noise.read_noise(
        pixels.variance,
        pixels.dof,
        float(cards["LSB"][0]),
        common=jitter,
        prior_dof=pixels.prior_dof,
        noisy=pixels.noisy,
    )
    scatter = np.sqrt(pixels.own, out=pixels.own)
    dq = _quality(pixels.noisy, pixels.frozen)
    median = _write(config, record, name, cards, read, error, scatter, dq, inputs)
    if pixels.prior_dof == 0:
        name = "scatter of neighbouring pixels: noise and fixed pattern together"
        record.value(name, median, "adu", section="camera")
        return
    record.value("read noise (median pixel)", median, "adu", section="camera")
    egain = common["EGAIN"][0]
    if egain:
        record.value("read noise (median pixel)", median * egain, "e-", section="camera")
    else:
        LOGGER.info("gain [e-/ADU] unknown (no EGAIN, no --gain): noise in ADU only")
    record.value("noisy pixels", int(pixels.noisy.sum()), "pixels", section="camera")
    frozen = int(pixels.frozen.sum())
    if frozen:
        record.warn(f"{counted(frozen, 'pixel')} never changed: flagged DO_NOT_USE and UNRELIABLE_FIT")
    record.value("pixels that never change", frozen, "pixels", section="camera")


def _quality(noisy, frozen):
    """DQ of a noise map."""
    dq = noisy * np.int16(DQ.NOISY)
    dq[frozen] |= np.int16(DQ.DO_NOT_USE | DQ.UNRELIABLE_FIT)
    return dq


def _write(config, record, name, cards, read, error, scatter, dq, inputs, **facts):
    """Write one read-noise map with its error and the pixel's own scatter; returns its median [ADU]."""
    path = config.output_dir / READ_NOISE / name
    record.claim(path)
    if cards["PRIORDOF"][0] == 0:
        # No two frames that differ: this is no measurement of the noise of a pixel.
        dq |= np.int16(DQ.UNRELIABLE_FIT)
    median = float(np.median(read.ravel()[:: read.size // MEDIAN_PIXELS | 1]))
    write_product(
        path,
        read,
        prodtype="READ_NOISE",
        unit="adu",
        cards={**cards, "RNMEDIAN": (median, "[adu] median read noise")},
        uncert=error,
        dq=dq,
        inputs=inputs,
        extra=[("SCATTER", scatter, "adu")],
    )
    record.add_product(path, "READ_NOISE", median=median, **facts)
    return median
