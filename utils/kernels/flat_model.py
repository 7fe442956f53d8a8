"""The flat model ``flat(T, t) = A + B (T - T_ref) + C (t - t_ref)`` of every pixel: weighted, closed form, in float64."""

from dataclasses import dataclass

import numpy as np

from utils.kernels.pieces import PIECE

TERMS = ("A", "B", "C")
COVARIANCE_PLANES = ("var_A", "var_B", "var_C", "cov_AB", "cov_AC", "cov_BC")


@dataclass(frozen=True)
class FlatDesign:
    """Where the masters lie, and which terms of the model they carry.

    temperature [degC], exposure [s] : (n,) float64.  t_ref [degC], e_ref [s] : where A is the flat.
    t_limit [degC], e_limit [s] : spreads that are not larger are one temperature, one exposure.
    fitted : 3 bool, terms A, B, C; a term not fitted is 0.  reasons : words for each term that is not fitted.
    """

    temperature: np.ndarray
    exposure: np.ndarray
    t_ref: float
    e_ref: float
    t_limit: float
    e_limit: float
    fitted: tuple
    reasons: tuple


@dataclass(frozen=True, eq=False)
class FlatFit:
    """Model of m pixels.

    coeff : (3, m) float64, A [1], B [1/K], C [1/s]; a term that is not fitted is 0, all NaN where no master is usable.
    cov : (6, m), planes COVARIANCE_PLANES; 0 for terms that are not fitted.  chi2 : (m,), NaN where n_used is 0.
    n_used : (m,) masters that took part.  fixed : (m,) bool, pixels whose own usable masters carry fewer terms than
    `design.fitted` says; there the missing terms are 0.
    """

    coeff: np.ndarray
    cov: np.ndarray
    chi2: np.ndarray
    n_used: np.ndarray
    fixed: np.ndarray


def design_model(temperature, exposure, t_ref=None, e_ref=None, temp_tolerance=0.0, exp_tolerance=1e-6):
    """Which terms a set of masters carries.

    temperature [degC], exposure [s] : (n,) of the masters.  t_ref, e_ref : None = mean of the set.
    temp_tolerance [degC] : temperatures whose spread is not larger are one temperature.  exp_tolerance : the same for
    exposures, as a fraction of the largest.  Where T and t change together, so that their effects cannot be told apart,
    the model keeps B, which then holds both, and C is 0.
    Returns a `FlatDesign`.  Raises ValueError for arrays that are empty, of unequal size or not finite.
    """
    temperature, exposure = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (temperature, exposure))
    if temperature.size == 0 or temperature.shape != exposure.shape:
        raise ValueError(
            f"{temperature.size} temperatures and {exposure.size} exposures, expected the same number"
        )
    if not (np.isfinite(temperature).all() and np.isfinite(exposure).all()):
        raise ValueError("temperatures and exposures of the masters must be finite")
    t_limit = max(temp_tolerance, 1e-9)
    e_limit = max(exp_tolerance, 1e-9) * max(float(np.abs(exposure).max()), 1e-300)
    reasons = []
    varies_t, varies_e = np.ptp(temperature) > t_limit, np.ptp(exposure) > e_limit
    if not varies_t:
        reasons.append(f"B = 0: one temperature, {temperature.mean():.2f} degC")
    if not varies_e:
        reasons.append(f"C = 0: one exposure, {exposure.mean():g} s")
    if varies_t and varies_e and _together(temperature, exposure, t_limit, e_limit):
        varies_e = False
        reasons.append("C = 0: temperature and exposure change together, B holds the effect of both")
    return FlatDesign(
        temperature,
        exposure,
        float(temperature.mean() if t_ref is None else t_ref),
        float(exposure.mean() if e_ref is None else e_ref),
        t_limit,
        e_limit,
        (True, bool(varies_t), bool(varies_e)),
        tuple(reasons),
    )


def _together(temperature, exposure, t_limit, e_limit):
    """Whether one is a straight line of the other to within the tolerance of either."""
    dt, de = temperature - temperature.mean(), exposure - exposure.mean()
    left_t = dt - de * (dt @ de) / (de @ de)
    left_e = de - dt * (dt @ de) / (dt @ dt)
    return np.ptp(left_t) <= t_limit or np.ptp(left_e) <= e_limit


def fit_flat_model(values, sigma, design):
    """Weighted fit of the model to every pixel.

    values : (n, ...) masters, NaN = unusable.  sigma : 1 sigma, (n, ...) or broadcasting to it, or (n,) for one sigma a
    master; not finite or not positive = unusable.  design : `design_model` of the n masters.
    Returns a `FlatFit` with m pixels in C order.  Temporaries are about 2 MB, the results 83 bytes a pixel.
    Reference: Bevington & Robinson, 3rd ed., ch. 7.
    """
    values, sigma, m = _flatten(values, sigma)
    coeff, cov = np.empty((3, m)), np.empty((6, m))
    chi2, n_used, fixed = np.empty(m), np.empty(m, np.int16), np.empty(m, bool)
    scaled = _scaled(design)
    done = np.zeros(m, bool)
    if all(design.fitted):
        complete = _Complete(design, scaled)
        n_used[:], fixed[:] = len(values), False
        for piece in _pieces(m, len(values)):
            planes = coeff[:, piece], cov[:, piece], chi2[piece]
            done[piece] = complete.solve(values[:, piece], _columns(sigma, piece), *planes)
    left = np.flatnonzero(~done)
    for piece in _pieces(left.size, len(values)):
        own = left[piece]
        solved = _Solution(values[:, own], _columns(sigma, own), design, scaled)
        coeff[:, own], cov[:, own] = solved.at_reference()
        chi2[own] = np.where(solved.n_used > 0, solved.chi2(), np.nan)
        n_used[own], fixed[own] = solved.n_used, solved.fixed
    return FlatFit(coeff, cov, chi2, n_used, fixed)


def left_out_residuals(values, sigma, design):
    """Residual of every master from the model fitted without it, and the variance of that prediction.

    Arguments as in `fit_flat_model`.  Exact, by the leverage: ``r / (1 - h)``, nothing is fitted again.
    Returns residual (n, m) = value - prediction and variance (n, m) of the prediction (of the model only); NaN where the
    master is unusable or the other masters do not carry the terms of the fit.
    Reference: Cook & Weisberg (1982), Residuals and Influence in Regression, ch. 2.
    """
    values, sigma, m = _flatten(values, sigma)
    residual, variance = np.empty((len(values), m)), np.empty((len(values), m))
    scaled = _scaled(design)
    for piece in _pieces(m, len(values)):
        solved = _Solution(values[:, piece], _columns(sigma, piece), design, scaled)
        spread = solved.prediction_variance()
        free = 1.0 - solved.w * spread
        with np.errstate(divide="ignore", invalid="ignore"):
            free[(free < 1e-9) | ~solved.usable] = np.nan
            residual[:, piece] = solved.residual() / free
            variance[:, piece] = spread / free
    lost = _indispensable(design)
    residual[lost], variance[lost] = np.nan, np.nan
    return residual, variance


def _indispensable(design):
    """Masters (n,) bool without which the others do not carry the terms of the model."""
    lost = np.zeros(design.temperature.size, bool)
    for index in range(lost.size):
        others = np.arange(lost.size) != index
        if not others.any():
            lost[index] = True
            continue
        exposure = design.exposure[others]
        tolerance = design.e_limit / max(float(np.abs(exposure).max()), 1e-300)
        less = design_model(design.temperature[others], exposure, None, None, design.t_limit, tolerance)
        lost[index] = less.fitted != design.fitted
    return lost


def predict(coeff, cov, design, temperature, exposure):
    """Synthetic flat at a temperature [degC] and exposure [s].

    coeff : (3, ...) and cov : (6, ...) as in `FlatFit`.  Returns value and 1 sigma, float64.
    """
    dt, de = float(temperature) - design.t_ref, float(exposure) - design.e_ref
    value = coeff[0] + dt * coeff[1] + de * coeff[2]
    var_a, var_b, var_c, ab, ac, bc = cov
    variance = var_a + dt * dt * var_b + de * de * var_c + 2.0 * (dt * ab + de * ac + dt * de * bc)
    return value, np.sqrt(np.maximum(variance, 0.0))


class _Complete:
    """Solutions of the many pixels whose masters are all usable and carry all terms: `_Solution` in fewer operations."""

    def __init__(self, design, scaled):
        x, z, self.scale = scaled
        self.columns = np.stack([np.ones_like(x), x, z, x * x, z * z, x * z])
        # Two points a spread d apart have the variance d^2 / 4.
        self.least_x = (0.5 * design.t_limit / self.scale.temperature) ** 2
        self.least_z = (0.5 * design.e_limit / self.scale.exposure) ** 2
        self.room = np.empty((3, x.size, 0))

    def solve(self, values, sigma, coeff, cov, chi2):
        """Fill coeff (3, m), cov (6, m), chi2 (m,); returns the pixels (m,) bool for which they hold."""
        n, m = values.shape
        if self.room.shape[2] < m:
            self.room = np.empty((3, n, m))
        w, y, wy = self.room[:, :, :m]
        with np.errstate(all="ignore"):
            w[:] = sigma
            w *= w
            np.divide(1.0, w, out=w)
            # From the first master, so that nothing cancels.
            first = values[0].astype(np.float64)
            np.subtract(values, first, out=y)
            np.multiply(w, y, out=wy)
            total, sx, sz, sxx, szz, sxz = self.columns @ w
            sy, sxy, szy = self.columns[:3] @ wy
            syy = np.einsum("nm,nm->m", wy, y)
            inverse = 1.0 / total
            mean_x, mean_z, mean_y = sx * inverse, sz * inverse, sy * inverse
            sxx -= sx * mean_x
            szz -= sz * mean_z
            sxz -= sx * mean_z
            sxy -= sx * mean_y
            szy -= sz * mean_y
            syy -= sy * mean_y
            product = sxx * szz
            determinant = product - sxz * sxz
            holds = determinant > 1e-9 * product
            holds &= sxx > self.least_x * total
            holds &= szz > self.least_z * total
            var_b, var_c, cov_bc = szz / determinant, sxx / determinant, -sxz / determinant
            b, c = var_b * sxy + cov_bc * szy, cov_bc * sxy + var_c * szy
            np.maximum(syy - b * sxy - c * szy, 0.0, out=chi2)
            holds &= np.isfinite(chi2)
            x_ref, z_ref = self.scale.reference
            dx, dz = mean_x - x_ref, mean_z - z_ref
            shift_b, shift_c = dx * var_b + dz * cov_bc, dx * cov_bc + dz * var_c
            s, u = self.scale.temperature, self.scale.exposure
            np.subtract(first + mean_y, dx * b + dz * c, out=coeff[0])
            np.divide(b, s, out=coeff[1])
            np.divide(c, u, out=coeff[2])
            np.add(inverse, dx * shift_b + dz * shift_c, out=cov[0])
            np.divide(var_b, s**2, out=cov[1])
            np.divide(var_c, u**2, out=cov[2])
            np.divide(shift_b, -s, out=cov[3])
            np.divide(shift_c, -u, out=cov[4])
            np.divide(cov_bc, s * u, out=cov[5])
        if not (sigma.min() > 0 and sigma.max() < np.inf):
            holds &= ((sigma > 0) & np.isfinite(sigma)).all(axis=0)
        return holds


class _Solution:
    """Normal equations of some pixels, centred on each pixel's weighted mean of T and t."""

    def __init__(self, values, sigma, design, scaled):
        self.design = design
        self.x, self.z, self.scale = scaled
        with np.errstate(divide="ignore", invalid="ignore"):
            w = np.square(sigma, dtype=np.float64)
            np.divide(1.0, w, out=w)
            self.usable = np.isfinite(values) & np.isfinite(w) & (sigma > 0)
        y = values.astype(np.float64)
        self.n_used = np.full(y.shape[1], len(y))
        if not self.usable.all():
            w, y = np.where(self.usable, w, 0.0), np.where(self.usable, y, 0.0)
            self.n_used = self.usable.sum(axis=0)
        self.w = np.broadcast_to(w, y.shape)
        x, z, w = self.x, self.z, self.w
        with np.errstate(divide="ignore", invalid="ignore"):
            self.total, sx, sz, sxx, szz, sxz = np.stack([np.ones_like(x), x, z, x * x, z * z, x * z]) @ w
            self.mean_x, self.mean_z = sx / self.total, sz / self.total
            self.mean_y = np.einsum("nm,nm->m", w, y) / self.total
            y -= self.mean_y
            wy = w * y
            self.syy = np.einsum("nm,nm->m", wy, y)
            self.sxy, self.szy = np.stack([x, z]) @ wy  # the weighted mean of y is 0
            sxx -= sx * self.mean_x
            szz -= sz * self.mean_z
            sxz -= sx * self.mean_z
        self._solve(sxx, szz, sxz, self.sxy, self.szy)
        self.y = y

    def chi2(self):
        """Weighted squares of the residuals, (m,)."""
        return np.maximum(self.syy - self.b * self.sxy - self.c * self.szy, 0.0)

    def residual(self):
        """Master less fitted model, (n, m); 0 where a master is unusable."""
        left = self.y.copy()
        for axis, mean, slope in ((self.x, self.mean_x, self.b), (self.z, self.mean_z, self.c)):
            if np.any(axis):
                left -= (axis[:, None] - mean) * slope
        left[~self.usable] = 0.0
        return left

    def _solve(self, sxx, szz, sxz, sxy, szy):
        """Slopes b, c in scaled units and their covariance; 0 where the pixel's masters do not carry them."""
        _, with_b, with_c = self.design.fitted
        # Two points a spread d apart have the variance d^2 / 4.
        has_b = with_b & (sxx > self.total * (0.5 * self.design.t_limit / self.scale.temperature) ** 2)
        has_c = with_c & (szz > self.total * (0.5 * self.design.e_limit / self.scale.exposure) ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            determinant = sxx * szz - sxz * sxz
            both = has_b & has_c & (determinant > 1e-9 * sxx * szz)
            # Masters left to a pixel in which T and t change together: B holds both, as in `design_model`.
            only_b, only_c = has_b & ~both, has_c & ~has_b
            self.b = np.where(both, (szz * sxy - sxz * szy) / determinant, np.where(only_b, sxy / sxx, 0.0))
            self.c = np.where(both, (sxx * szy - sxz * sxy) / determinant, np.where(only_c, szy / szz, 0.0))
            self.var_b = np.where(both, szz / determinant, np.where(only_b, 1.0 / sxx, 0.0))
            self.var_c = np.where(both, sxx / determinant, np.where(only_c, 1.0 / szz, 0.0))
            self.cov_bc = np.where(both, -sxz / determinant, 0.0)
        carries_b, carries_c = both | only_b, both | only_c
        self.fixed = (with_b & ~carries_b) | (with_c & ~carries_c)

    def at_reference(self):
        """Coefficients (3, m) and covariance (6, m) in user units, A at the reference."""
        x_ref, z_ref = self.scale.reference
        dx, dz = self.mean_x - x_ref, self.mean_z - z_ref
        with np.errstate(divide="ignore", invalid="ignore"):
            shift_b = dx * self.var_b + dz * self.cov_bc
            shift_c = dx * self.cov_bc + dz * self.var_c
            a = self.mean_y - dx * self.b - dz * self.c
            var_a = 1.0 / self.total + dx * shift_b + dz * shift_c
        s, u = self.scale.temperature, self.scale.exposure
        coeff = np.stack([a, self.b / s, self.c / u])
        planes = [
            var_a,
            self.var_b / s**2,
            self.var_c / u**2,
            -shift_b / s,
            -shift_c / u,
            self.cov_bc / (s * u),
        ]
        cov = np.stack(planes)
        coeff[:, self.n_used == 0] = np.nan
        cov[:, self.n_used == 0] = np.nan
        return coeff, cov

    def prediction_variance(self):
        """Variance (n, m) of the fitted model at each master."""
        dx, dz = self.x[:, None] - self.mean_x, self.z[:, None] - self.mean_z
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = dx * dx * self.var_b + dz * dz * self.var_c + 2.0 * dx * dz * self.cov_bc
            return 1.0 / self.total + slopes


@dataclass(frozen=True)
class _Scale:
    temperature: float
    exposure: float
    reference: tuple


def _scaled(design):
    """T and t around the mean of the set in units of their spread; 0 for a term that is not fitted."""
    columns, units, reference = [], [], []
    for values, ref, fitted in (
        (design.temperature, design.t_ref, design.fitted[1]),
        (design.exposure, design.e_ref, design.fitted[2]),
    ):
        centre = values.mean()
        unit = float(values.std()) if fitted else 1.0
        columns.append((values - centre) / unit if fitted else np.zeros_like(values))
        units.append(unit)
        reference.append((ref - centre) / unit if fitted else 0.0)
    return columns[0], columns[1], _Scale(units[0], units[1], tuple(reference))


def _flatten(values, sigma):
    values, sigma = np.asarray(values), np.asarray(sigma)
    if sigma.ndim == 1 and values.ndim > 1:
        sigma = sigma.reshape(-1, *[1] * (values.ndim - 1))
    if sigma.shape != values.shape and sigma.size == len(values):
        sigma = sigma.reshape(len(values), 1)
    elif sigma.shape != values.shape:
        sigma = np.broadcast_to(sigma, values.shape)
    values = values.reshape(len(values), -1)
    if sigma.shape[1:] != (1,):
        sigma = sigma.reshape(values.shape)
    return values, sigma, values.shape[1]


def _columns(sigma, piece):
    return sigma if sigma.shape[1] == 1 else sigma[:, piece]


def _pieces(m, n):
    """Slices of pixels whose (n, piece) temporaries stay in cache."""
    size = max(1024, PIECE // max(1, n))
    return (slice(start, min(start + size, m)) for start in range(0, m, size))
