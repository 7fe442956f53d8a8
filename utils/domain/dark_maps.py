"""Dark-current maps side by side: their planes mapped, as signals with the noise model, and the fits over all pixels."""

import math
from dataclasses import dataclass, replace

import numpy as np

from utils.domain.bias_model import BiasModel
from utils.errors import InputError
from utils.fits_io.mapped import drop_pages
from utils.fits_io.product_reader import view_planes
from utils.fits_io.products import DQ
from utils.fits_io.workers import in_workers, shared_empty
from utils.kernels import dark_fit, dark_law, dark_regions, dark_sensor, noise
from utils.kernels import groups as grouping

BLOCK = 1 << 15
"""Pixels fitted at a time: work arrays stay in cache."""
SAMPLE, SAMPLE_BRIGHT = 20000, 4000
"""Pixels from which the sensor's own distribution is measured: of all kinds, and bright ones in addition."""
NOT_FITTED = int(DQ.SATURATED | DQ.NO_DATA | DQ.DO_NOT_USE)
STRUCK = 6.0
"""A map whose residual lies so many sigma high in a pixel that fits without it was struck."""
POOR_FIT = 5.0
"""A pixel whose chi-square lies so many sigma above its expectation is not described by the law."""
FAINT = 3.0
"""Below so many sigma the dark current of a pixel is not significant."""
MISSED_TOGETHER = 1.1
"""Mean chi-square of the pixels of a place, each over its degrees of freedom, that tells of a law that misses them."""
FREE = 2.0
"""Parameters that the data of an ordinary pixel decide, or so."""
MOST_LOOKS = 3
"""Searches for places that do not follow the law of the sensor."""
EXPOSURE_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class DarkMaps:
    """Dark-current maps of one camera setting, in order of exposure and temperature.

    paths; headers : list of dict.  rates : mapped (ny, nx) planes [ADU/s].  dqs : mapped.  temperature [degC],
    exposure [s], frames (frames behind a map, as weight), session : (n,).  read_variance (ny, nx) or a number [ADU^2].
    bias : `BiasModel` or None.  inverse_gain [ADU/e-].
    """

    paths: list
    headers: list
    rates: list
    dqs: list
    temperature: np.ndarray
    exposure: np.ndarray
    frames: np.ndarray
    session: np.ndarray
    read_variance: object
    bias: BiasModel | None
    inverse_gain: float

    @property
    def shape(self):
        """(ny, nx) of the maps."""
        return self.rates[0].shape

    def subset(self, keep):
        """Return the maps at the indices ``keep``."""
        pick = [[one[i] for i in keep] for one in (self.paths, self.headers, self.rates, self.dqs)]
        arrays = [one[keep] for one in (self.temperature, self.exposure, self.frames, self.session)]
        return DarkMaps(*pick, *arrays, self.read_variance, self.bias, self.inverse_gain)

    def by_exposure(self):
        """Indices of the maps of each exposure, shortest first."""
        return grouping.group_by_gap(np.log(self.exposure), EXPOSURE_TOLERANCE)

    def signal(self, where):
        """Signals (n, m) float32 [ADU] of pixels ``where`` (slice or indices of the flat maps), NaN = not usable."""
        out = np.empty((len(self.rates), _count(where, self.rates[0].size)), np.float32)
        for row, plane, dq, t in zip(out, self.rates, self.dqs, self.exposure, strict=True):
            np.multiply(plane.reshape(-1)[where], np.float32(t), out=row)
            row[(dq.reshape(-1)[where] & NOT_FITTED) != 0] = np.nan
            part = where if isinstance(where, slice) else slice(None)
            drop_pages(plane.reshape(-1)[part], dq.reshape(-1)[part])
        return out

    def noise(self, where):
        """Variance of one sample without signal, (m,) [ADU^2]."""
        m = _count(where, self.rates[0].size)
        if np.ndim(self.read_variance) == 0:
            return np.full(m, self.read_variance, np.float32)
        return self.read_variance.reshape(-1)[where]

    def bias_error(self, where):
        """Covariance of the bias of pixels, or None without a bias."""
        if self.bias is None:
            return None
        planes = (self.bias.var_a, self.bias.var_b, self.bias.cov_ab)
        if self.bias.fixed_slope:
            return dark_fit.BiasError(planes[0].reshape(-1)[where])
        return dark_fit.BiasError(*(plane.reshape(-1)[where] for plane in planes))


def _count(where, size):
    return len(range(*where.indices(size))) if isinstance(where, slice) else len(where)


def open_maps(paths, bias, read_variance):
    """Open dark-current maps.  Raises InputError where one is missing or differs in shape, ADU scale or gain."""
    opened = [(path, *view_planes(path)) for path in paths]
    opened.sort(key=lambda one: (one[1]["EXPTIME"], one[1]["TEMP"]))
    first_path, first, planes = opened[0]
    for path, header, own in opened:
        if header.get("PRODTYPE") != "DARK_CURRENT" or "DQ" not in own:
            raise InputError(f"{path}: got {header.get('PRODTYPE')}, expected DARK_CURRENT with DQ")
        if own["PRIMARY"].shape != planes["PRIMARY"].shape:
            raise InputError(
                f"{path}: shape {own['PRIMARY'].shape}, expected {planes['PRIMARY'].shape} as in {first_path}"
            )
        for key in ("ADUSCALE", "GAIN", "XBINNING", "YBINNING"):
            if header.get(key) != first.get(key):
                raise InputError(
                    f"{path}: {key} {header.get(key)}, expected {first.get(key)} as in {first_path}"
                )
    headers = [header for _, header, _ in opened]

    def column(key):
        return np.array([header[key] for header in headers], np.float64)

    return DarkMaps(
        [path for path, _, _ in opened],
        headers,
        [own["PRIMARY"] for _, _, own in opened],
        [own["DQ"] for _, _, own in opened],
        column("TEMP"),
        column("EXPTIME"),
        column("EFFRAMES"),
        column("SESSION").astype(int),
        float(first["RNVAR"]) if read_variance is None else read_variance,
        bias,
        float(first.get("INVGAIN") or 0.0),
    )


def sampled(maps, bright, share=1):
    """Pixels that speak for the sensor: a regular sample and further bright ones, flat indices; 1 / share of them."""
    size = bright.size
    regular = np.arange(0, size, max(1, size * share // SAMPLE) | 1)
    more = np.flatnonzero(bright)
    more = more[:: max(1, more.size * share // SAMPLE_BRIGHT)]
    return np.union1d(regular, more)


def measured_levels(maps, where):
    """Median signal of each map and the variance of a pixel in it; NaN where all of its pixels are saturated."""
    signal = maps.signal(where)
    told = np.isfinite(signal).any(axis=1)
    levels = np.full(len(signal), np.nan)
    levels[told] = np.nanmedian(signal[told], axis=1)
    read = float(np.median(maps.noise(where)))
    return levels, (read + maps.inverse_gain * np.maximum(levels, 0.0)) / maps.frames


def sensor_of(maps, bright, *, gamma_free, offset_free, thorough=True, known=None):
    """Fit what the pixels share; thorough False leaves rivals away; returns `dark_sensor.SensorLaw`.

    Places where the dark current grows otherwise (glow) do not speak: they are found with a first law, and left out.
    known : law of the same maps and some more, which brings these places and where the search starts.
    """
    where = sampled(maps, bright, 1 if thorough else 4)
    free = {"gamma_free": gamma_free, "offset_free": offset_free}
    if known is not None:
        if known.regions is not None:
            where = where[~known.regions.holds(where)]
        law = _law_of(maps, bright, where, thorough=thorough, known=known, **free)
        return replace(law, regions=known.regions)
    law = _law_of(maps, bright, where, thorough=thorough, **free)
    grid = dark_regions.Grid.of(maps.shape)
    if grid is None:
        return law
    levels, regions = _tile_levels(maps, bright, grid), None
    for _ in range(MOST_LOOKS):
        found = _regions_of(maps, law, grid, levels)
        if found is None or (regions is not None and not (found.odd & ~regions.odd).any()):
            break
        regions = found
        # Places that spoiled the first law may hide others.
        law = _law_of(maps, bright, where[::4][~regions.holds(where[::4])], thorough=False, **free)
    if regions is None:
        return law
    law = _law_of(maps, bright, where[~regions.holds(where)], thorough=thorough, **free)
    return replace(law, regions=regions)


def _tile_levels(maps, bright, grid):
    """Mean signal of the tiles of each map, (n, ny, nx) [ADU], of steady pixels that are not hot.

    NaN where a tenth of them is saturated.
    """
    dqs = [dq[grid.cut] for dq in maps.dqs]
    steady = ~bright[grid.cut]
    for dq in dqs:
        steady &= (dq & DQ.NOISY) == 0
    fitted = [(dq & NOT_FITTED) == 0 for dq in dqs]
    planes = (plane[grid.cut] for plane in maps.rates)
    return grid.alike(planes, fitted, steady) * maps.exposure[:, None, None]


def _regions_of(maps, law, grid, levels):
    """Odd tiles under a law: `dark_regions.Regions` or None."""
    offset = law.offset[np.unique(maps.session, return_inverse=True)[1]]
    some = slice(0, None, max(1, maps.rates[0].size // SAMPLE))
    bias = 0.0
    if maps.bias is not None:
        error = maps.bias_error(some)
        t = float(maps.temperature.mean())
        variance = error.var_a
        if error.var_b is not None:
            variance = variance + 2.0 * t * error.cov_ab + t * t * error.var_b
        bias = float(np.nanmedian(variance))
    return dark_regions.find_regions(
        grid, levels - offset[:, None, None], law, float(np.median(maps.noise(some))), bias
    )


def _law_of(maps, bright, where, *, gamma_free, offset_free, thorough, known=None):
    """Fit what the pixels ``where`` share."""
    levels, variance = measured_levels(maps, where)
    strength = np.square(np.maximum(levels, 0.0)) / variance + 1e-9
    design = dark_fit.Design.of(maps.temperature, maps.exposure, maps.frames, strength)
    session = np.unique(maps.session, return_inverse=True)[1]
    return dark_sensor.sensor_law(
        maps.signal(where),
        maps.noise(where),
        design,
        session,
        inverse_gain=maps.inverse_gain,
        bias=maps.bias_error(where),
        bright=bright.reshape(-1)[where],
        gamma_free=gamma_free,
        offset_free=offset_free,
        thorough=thorough,
        known=known,
    )


@dataclass(eq=False)
class FittedMaps:
    """Maps of a fit, flat: params (3, m) and cov (6, m) float32 at t_min and 1 s, chi2_red, n_used, unreliable, faint."""

    params: np.ndarray
    cov: np.ndarray
    chi2_red: np.ndarray
    n_used: np.ndarray
    unreliable: np.ndarray
    faint: np.ndarray


def fit_all(maps, law, bright, t_min, *, where=None, jobs=1, progress=None):
    """Fit every pixel (or those at the flat indices ``where``) with the sensor's support.

    bright (ny, nx) bool chooses the population.  A pixel that its population does not explain keeps its own fit; a map
    in which a cosmic hit struck a pixel is left out there.  Returns `FittedMaps`.
    """
    size = bright.size if where is None else len(where)
    out = FittedMaps(
        shared_empty((3, size), np.float32),
        shared_empty((6, size), np.float32),
        shared_empty((size,), np.float32),
        shared_empty((size,), np.int16),
        shared_empty((size,), bool),
        shared_empty((size,), bool),
    )
    session = np.unique(maps.session, return_inverse=True)[1]
    shift = law.offset[session].astype(np.float32)[:, None]
    flags = bright.reshape(-1)

    def one(start):
        part = slice(start, min(start + BLOCK, size))
        pixels = part if where is None else where[part]
        signal = maps.signal(pixels)
        signal -= shift
        prior = law.prior(flags[pixels])
        if law.regions is not None:
            prior = law.regions.prior(prior, pixels, flags[pixels])
        fit = fit_block(signal, maps.noise(pixels), law, prior, maps.inverse_gain, maps.bias_error(pixels))
        params, cov = dark_law.at_reference(fit, law.design, t_min)
        degrees = np.maximum(fit.n_used - fit.parameters, 0.5)
        reduced = fit.chi2 / degrees
        out.chi2_red[part], out.n_used[part] = reduced, fit.n_used
        # The limit falls with the degrees of freedom: few pixels have to be held against their own.
        poor = np.flatnonzero(reduced > noise.chi2_limit(degrees.max(), POOR_FIT))
        poor = poor[reduced[poor] > noise.chi2_limit(degrees[poor], POOR_FIT)]
        # A law that does not describe a pixel is wrong by as much as its residuals are, at any temperature.
        cov[:, poor] *= _misfit(reduced[poor], fit.n_used[poor], fit.parameters[poor])
        out.params[:, part], out.cov[:, part] = params, cov
        faint = ~(fit.p > FAINT * np.sqrt(fit.cov[0]))
        out.faint[part] = faint
        unreliable = faint | ~np.isfinite(fit.p)
        unreliable[poor] = True
        out.unreliable[part] = unreliable
        return part.stop - part.start

    with np.errstate(over="ignore"):
        in_workers(lambda: one, range(0, size, BLOCK), jobs, progress)
    if law.regions is not None:
        _widen_in_regions(out, law.regions, slice(None) if where is None else where, flags)
    return out


def _misfit(reduced, n_used, parameters):
    """Factor of the covariance where a law is wrong by as much as its residuals are, at any temperature."""
    return 1.0 + (reduced - 1.0) * (n_used / np.maximum(parameters, 1.0))


def _widen_in_regions(out, regions, pixels, bright):
    """Widen the errors of pixels that the law misses together, each by less than it would be flagged for."""
    ordinary = ~bright[pixels] & ~(out.unreliable & ~out.faint)
    mean = regions.mean_of(np.where(ordinary, out.chi2_red, np.nan), pixels)
    some = np.flatnonzero(ordinary & (mean > MISSED_TOGETHER))
    out.cov[:, some] *= _misfit(mean[some], out.n_used[some], FREE).astype(np.float32)


def fit_block(signal, read_variance, law, prior, inverse_gain, bias):
    """Fit one block of pixels with a prior, with second looks at those that need one; returns `PixelFit`."""

    def again(pixels, data, own=None):
        error = None if bias is None else bias.at(pixels)
        given = prior.at(pixels) if own is None else own
        return dark_fit.fit_pixels(
            data, read_variance[pixels], law.design, given, inverse_gain=inverse_gain, bias=error, start=start
        )

    start = (law.b.mean, law.gamma.mean)
    fit = dark_fit.fit_pixels(
        signal,
        read_variance,
        law.design,
        prior,
        inverse_gain=inverse_gain,
        bias=bias,
        start=start,
    )
    stray = np.flatnonzero(fit.reach > POOR_FIT)
    if stray.size:
        fit.put(stray, again(stray, signal[:, stray], law.wide))
    degrees = np.maximum(fit.n_used - 1.0, 1.0)
    poor = np.flatnonzero((fit.chi2 > degrees + 6.0 * np.sqrt(2.0 * degrees)) & (fit.n_used > 4))
    if poor.size:
        _leave_out_struck(fit, poor, signal, read_variance, law, inverse_gain, again)
    return fit


def _leave_out_struck(fit, poor, signal, read_variance, law, inverse_gain, again):
    """Fit pixels again without their highest residual, and keep that where the rest then agrees."""
    d = law.design
    unit = d.exposure[:, None] * np.exp(
        np.outer(d.x, fit.b[poor]) + np.outer(d.log_exposure, fit.gamma[poor])
    )
    model = fit.p[poor] * unit
    sigma = np.sqrt((read_variance[poor] + inverse_gain * np.maximum(model, 0.0)) / d.frames[:, None])
    data = signal[:, poor]
    pull = np.nan_to_num((data - model) / sigma, nan=-np.inf)
    worst = pull.argmax(axis=0)
    struck = np.flatnonzero(pull[worst, np.arange(poor.size)] > STRUCK)
    if struck.size == 0:
        return
    data = data[:, struck].copy()
    data[worst[struck], np.arange(struck.size)] = np.nan
    found = again(poor[struck], data)
    degrees = np.maximum(found.n_used - 1.0, 1.0)
    better = np.flatnonzero(found.chi2 < degrees + 4.0 * np.sqrt(2.0 * degrees))
    if better.size:
        fit.put(poor[struck[better]], found.part(better))


def combined_quality(maps):
    """DQ of a model: hot, warm and unstable bits of any map; NO_DATA where no map is usable."""
    any_bits = np.zeros(maps.shape, np.int16)
    usable = np.zeros(maps.shape, bool)
    for dq in maps.dqs:
        any_bits |= dq
        usable |= (dq & NOT_FITTED) == 0
    any_bits &= ~np.int16(NOT_FITTED)
    any_bits[~usable] |= DQ.NO_DATA
    return any_bits


def offset_can_be_told(maps):
    """Temperatures and exposures that can tell an offset from gamma: two of each in some session.

    B and gamma of a pixel are the same in all sessions; how well each offset is told, the fit says.
    """
    for number in np.unique(maps.session):
        mine = maps.session == number
        if np.ptp(maps.temperature[mine]) > 1.0 and np.ptp(np.log(maps.exposure[mine])) > math.log(1.5):
            return True
    return False
