"""Read-noise maps of the bias pipeline: pooled over all temperatures, and of each."""

import numpy as np

from utils.application.log import LOGGER
from utils.domain.frame_groups import date_cards
from utils.fits_io.naming import counted
from utils.fits_io.plane_writer import computed_planes
from utils.fits_io.products import DQ, header_from_inputs, write_product
from utils.kernels import noise

READ_NOISE = "read_noise"
MEDIAN_PIXELS = 1 << 18
"""Pixels, evenly spaced, from which a median is taken."""


def write_group(config, record, name, cards, result, pixels, factor, jitter, inputs):
    """Write read_noise_{T}C.fits: the scatter of one group, moderated by the sensor's.

    result : `utils.fits_io.frame_stack.StackResult` of the group.  pixels : `utils.domain.masters.PixelNoise` of the set.
    factor : noise of the group over the reference.  jitter : variance of the frames' levels, which is no read noise
    [ADU^2].  inputs : rows of the INPUTS table.
    """
    prior = (pixels.prior * factor) ** 2
    step = {"lsb": float(cards["LSB"][0]), "common": jitter, "prior_dof": pixels.prior_dof}
    variances, counts, frozen = (one.reshape(-1) for one in (result.variance, result.n_used, pixels.frozen))

    def compute(part):
        own = variances[part]
        dof = counts[part].astype(np.float32) - np.float32(1.0)
        moderated, noisy = noise.moderate_variance(own, dof, prior, pixels.prior_dof)
        read, error = noise.read_noise(moderated, dof, noisy=noisy, **step)
        return _planes(read, error, own, noisy, frozen[part])

    _write(
        config,
        record,
        f"read_noise_{name}C.fits",
        cards,
        result.variance.shape,
        compute,
        inputs,
        temperature=cards["TEMP"][0],
    )


def write_pooled(config, record, groups, common, pixels, jitter, inputs):
    """Write read_noise.fits: the scatter pooled over all groups."""
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
    step = {"lsb": float(cards["LSB"][0]), "common": jitter, "prior_dof": pixels.prior_dof}
    maps = (pixels.variance, pixels.own, pixels.dof, pixels.noisy, pixels.frozen)
    variances, owns, dofs, noisies, frozens = (one.reshape(-1) for one in maps)

    def compute(part):
        read, error = noise.read_noise(variances[part], dofs[part], noisy=noisies[part], **step)
        return _planes(read, error, owns[part], noisies[part], frozens[part])

    median = _write(config, record, "read_noise.fits", cards, pixels.own.shape, compute, inputs)
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


def _planes(read, error, variance, noisy, frozen):
    """Planes of a piece of a noise map."""
    dq = noisy * np.int16(DQ.NOISY)
    dq[frozen] |= np.int16(DQ.DO_NOT_USE | DQ.UNRELIABLE_FIT)
    return {"read": read, "error": error, "scatter": np.sqrt(variance), "dq": dq}


def _write(config, record, name, cards, shape, compute, inputs, **facts):
    """Write one read-noise map with its error and the pixel's own scatter; returns its median [ADU].

    compute : function of a slice of flat pixels that gives the `_planes` there.
    """
    path = config.output_dir / READ_NOISE / name
    record.claim(path)
    pixels = shape[0] * shape[1]
    median = float(np.median(compute(slice(0, pixels, pixels // MEDIAN_PIXELS | 1))["read"]))
    unmeasured = cards["PRIORDOF"][0] == 0

    def piece(part):
        planes = compute(part)
        if unmeasured:
            # No two frames that differ: this is no measurement of the noise of a pixel.
            planes["dq"] |= np.int16(DQ.UNRELIABLE_FIT)
        return planes

    kinds = {"read": np.float32, "error": np.float32, "scatter": np.float32, "dq": np.int16}
    planes = computed_planes(shape, kinds, piece)
    if not record.stands(path):
        write_product(
            path,
            planes["read"],
            prodtype="READ_NOISE",
            unit="adu",
            cards={**cards, "RNMEDIAN": (median, "[adu] median read noise")},
            uncert=planes["error"],
            dq=planes["dq"],
            inputs=inputs,
            extra=[("SCATTER", planes["scatter"], "adu")],
            jobs=config.shared.jobs,
        )
    record.add_product(path, "READ_NOISE", median=median, **facts)
    return median
