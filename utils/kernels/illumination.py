"""Illumination of a flat: the radial model with free centre.

``V(r) = 1 + k1 r^2 + k2 r^4 + k3 r^6``, r = 1 at half the frame's diagonal, ``sqrt(nx^2 + ny^2) / 2`` pixels.
The model is 1 at its centre.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from utils.kernels.flat_bins import Bins, bin_flat, bin_size, noise_of_bins, spoiled

PARAMETERS = ("k1", "k2", "k3", "x0", "y0")
EQUATION = "V = 1 + k1 r^2 + k2 r^4 + k3 r^6, r = 1 at half the diagonal"
CENTRE_LIMIT = 0.1
"""A centre with a larger error than this, in half diagonals, is not constrained."""
TERM_LIMIT = 1.0
"""A coefficient with a larger error than this is not constrained: it is the error of V at r = 1."""
MASK_ROUNDS = 10
START_BINS = 512
"""Bins by which a start is chosen."""
FLAT_LIMIT = 30.0
"""Radial terms that lower chi-square by less than this say nothing: the illumination is even."""


@dataclass(frozen=True, eq=False)
class RadialModel:
    """Radial illumination of a frame of ``shape`` (ny, nx).

    k1, k2, k3 : coefficients for r = 1 at half the diagonal.  x0, y0 : centre [pixels, the first pixel's centre is 0].
    cov : (5, 5) covariance of PARAMETERS; rows of values that were given or held fixed are 0.
    """

    shape: tuple
    k1: float
    k2: float
    k3: float
    x0: float
    y0: float
    cov: np.ndarray = field(default_factory=lambda: np.zeros((5, 5)))

    @property
    def sigma(self):
        """1 sigma of PARAMETERS, (5,) float64."""
        return np.sqrt(np.maximum(np.diag(self.cov), 0.0))

    def at(self, x, y):
        """V at pixels (x, y), arrays that broadcast."""
        return _radial(self._parameters(), x, y, half_diagonal(self.shape))

    def evaluate(self, with_sigma=True):
        """V of every pixel and its 1 sigma, each (ny, nx) float32; the error is None unless asked for."""
        ny, nx = self.shape
        value = np.empty(self.shape, np.float32)
        sigma = np.zeros(self.shape, np.float32) if with_sigma else None
        parameters, half = self._parameters(), half_diagonal(self.shape)
        x = np.arange(nx, dtype=np.float64)
        rows = max(1, (1 << 14) // nx)
        for top in range(0, ny, rows):
            y = np.arange(top, min(top + rows, ny), dtype=np.float64)[:, None]
            value[top : top + rows] = _radial(parameters, x, y, half)
            if with_sigma and self.cov.any():
                variance = _variance(parameters, self.cov, x, y, half)
                sigma[top : top + rows] = np.sqrt(np.maximum(variance, 0.0, out=variance), out=variance)
        return value, sigma

    def _parameters(self):
        return np.array([1.0, self.k1, self.k2, self.k3, self.x0, self.y0])


@dataclass(frozen=True, eq=False)
class FitQuality:
    """How well an illumination describes its flat.

    level : flat where V = 1.  chi2_red : reduced chi-square of the bins used; well above 1, the flat has structure
    that the model does not describe.  rms_residual : relative scatter of the bins used around the model, and
    rms_expected from noise and PRNU alone.  prnu : relative scatter of pixels beyond their noise, inside bins.
    masked : fraction of the bins left out as dust or defects.  bins : `Bins`; used : (nby, nbx) bool.
    notes : words on what the data do not constrain.
    """

    level: float
    chi2_red: float
    rms_residual: float
    rms_expected: float
    prnu: float
    masked: float
    bins: Bins
    used: np.ndarray
    notes: tuple = ()


@dataclass(frozen=True, eq=False)
class RadialFit:
    """A fitted radial model, its `FitQuality`, and which of PARAMETERS were fitted (5 bool; others are fixed)."""

    model: RadialModel
    quality: FitQuality
    fitted: tuple


def half_diagonal(shape):
    """Pixels at which r = 1."""
    return 0.5 * float(np.hypot(*shape))


def radial_model(shape, k1, k2, k3, center=None):
    """A radial model of given coefficients, without errors.

    shape : (ny, nx).  center : (x, y) [pixels], None = middle of the frame.
    """
    x0, y0 = ((shape[1] - 1) / 2, (shape[0] - 1) / 2) if center is None else center
    return RadialModel(tuple(shape), float(k1), float(k2), float(k3), float(x0), float(y0))


def fit_radial(flat, sigma=None, usable=None):
    """Fit the radial model with free centre to a flat.

    flat : (ny, nx), any level.  sigma : 1 sigma of its pixels, (ny, nx) or a number; None = unknown, then the scatter
    of the pixels serves.  usable : (ny, nx) bool, None = all; NaN is never used.
    Bins of clipped means, weighted by noise and PRNU; dust and defects are masked by their local residuals, again after
    every fit.  Errors are widened by ``sqrt(chi2_red)`` where that exceeds 1.  A centre or coefficient that the flat does
    not constrain is held at the middle or at 0, and the notes say so.
    Returns a `RadialFit`.  Raises ValueError where fewer than 2 bins can be used, or the flat has no light.
    """
    half = half_diagonal(flat.shape)
    middle = (flat.shape[1] - 1) / 2, (flat.shape[0] - 1) / 2

    def solve(bins, used):
        return _solve_radial(bins, used, half, middle)

    def paint(solution):
        p = solution.parameters
        return RadialModel(flat.shape, *p[1:4] / p[0], *p[4:]).evaluate(with_sigma=False)[0] * np.float32(
            p[0]
        )

    bins, used, solution = fit_bins(flat, sigma, usable, solve, paint)
    quality = fit_quality(bins, used, solution)
    cov = solution.cov * max(1.0, quality.chi2_red)
    level, k = solution.parameters[0], solution.parameters[1:4] / solution.parameters[0]
    # From (c, c k, centre) to (k, centre): dk = d(ck) / c - k dc / c.
    step = np.zeros((5, 6))
    step[:3, 1:4] = np.eye(3) / level
    step[:3, 0] = -k / level
    step[3:, 4:] = np.eye(2)
    step[:3][~solution.free[1:4]] = 0.0
    model = RadialModel(flat.shape, *map(float, k), *map(float, solution.parameters[4:]), step @ cov @ step.T)
    return RadialFit(model, quality, tuple(bool(free) for free in solution.free[1:]))


# --- fit on bins, with the mask of dust and defects -----------------------------------------------------------------


def fit_bins(flat, sigma, usable, solve, paint):
    """Fit a surface to a flat in bins: a first look by medians, then twice by clipped means.

    solve : (Bins, used) -> solution with parameters, cov, n_free, notes and predict(x, y).  paint : solution -> (ny, nx).
    Returns the `Bins`, which of them were used (bool), and the solution.
    """
    flat = np.asarray(flat)
    if usable is not None:
        flat = np.where(usable, flat, np.nan)
    noise = noise_of_bins(sigma, flat.shape, bin_size(flat.shape))
    bins = bin_flat(flat, sigma, noise=noise)
    used, solution = _masked_fit(bins, solve)
    for _ in range(2):
        bins = bin_flat(flat, sigma, paint(solution), noise=noise)
        used, solution = _masked_fit(bins, solve)
    return bins, used, solution


def _masked_fit(bins, solve):
    """Fit, mask the bins that stand out, fit again, until the mask stays."""
    known = np.isfinite(bins.value) & np.isfinite(bins.sigma) & (bins.sigma > 0)
    # A bin of very few pixels is mostly its defects.
    known &= bins.n * 4 >= np.median(bins.n[known]) if known.any() else False
    if known.sum() < 2:
        raise ValueError(f"{known.sum()} usable bins, expected 2 or more")
    if not np.median(bins.value[known]) > 0:
        raise ValueError(f"flat of level {np.median(bins.value[known]):g}, expected light")
    used = known
    solution = solve(bins, used)
    for _ in range(MASK_ROUNDS):
        updated = known & ~spoiled(bins, solution.predict(bins.x, bins.y))
        if updated.sum() < 0.5 * known.sum() or (updated == used).all():
            break
        used = updated
        solution = solve(bins, used)
    return used, solution


def fit_quality(bins, used, solution):
    """`FitQuality` of a solution of `fit_bins`."""
    predicted = solution.predict(bins.x[used], bins.y[used])
    residual = bins.value[used] - predicted
    dof = residual.size - solution.n_free
    chi2 = float(((residual / bins.sigma[used]) ** 2).sum())
    return FitQuality(
        level=float(solution.parameters[0]),
        chi2_red=chi2 / dof if dof > 0 else float("nan"),
        rms_residual=float(np.sqrt(np.mean((residual / predicted) ** 2))),
        rms_expected=float(np.sqrt(np.mean((bins.sigma[used] / predicted) ** 2))),
        prnu=bins.prnu,
        masked=1.0 - used.sum() / np.isfinite(bins.value).sum(),
        bins=bins,
        used=used,
        notes=solution.notes,
    )


# --- radial model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Radial:
    """parameters: c, c k1, c k2, c k3, x0, y0; free: which of them were fitted; cov (6, 6)."""

    parameters: np.ndarray
    free: np.ndarray
    cov: np.ndarray
    chi2: float
    half: float
    notes: tuple = ()

    @property
    def n_free(self):
        return int(self.free.sum())

    def predict(self, x, y):
        return _radial(self.parameters, x, y, self.half)


def _radial(p, x, y, half):
    r2 = ((x - p[4]) ** 2 + (y - p[5]) ** 2) / half**2
    return p[0] + r2 * (p[1] + r2 * (p[2] + r2 * p[3]))


def _slopes(p, x, y, half):
    """Derivatives of `_radial` by its six parameters, each in the shape of x and y together."""
    dx, dy = (x - p[4]) / half, (y - p[5]) / half
    r2 = dx * dx + dy * dy
    steep = -2.0 / half * (p[1] + r2 * (2.0 * p[2] + r2 * 3.0 * p[3]))
    r4 = r2 * r2
    return [np.ones_like(r2), r2, r4, r2 * r4, steep * dx, steep * dy]


def _variance(p, cov, x, y, half):
    """Variance of `_radial` by the covariance of its last five parameters, in the shape of x and y together."""
    dx, dy = (x - p[4]) / half, (y - p[5]) / half
    r2 = dx * dx + dy * dy
    # Slopes by k are powers of r^2, those by the centre are steep dx and steep dy.
    steep = -2.0 / half * (p[1] + r2 * (2.0 * p[2] + r2 * 3.0 * p[3]))
    c = cov
    of_k = c[0, 0] + r2 * (
        2.0 * c[0, 1] + r2 * (2.0 * c[0, 2] + c[1, 1] + r2 * (2.0 * c[1, 2] + r2 * c[2, 2]))
    )
    mixed = (
        dx * (c[0, 3] + r2 * (c[1, 3] + r2 * c[2, 3])) + dy * (c[0, 4] + r2 * (c[1, 4] + r2 * c[2, 4]))
    ) * r2
    of_centre = dx * dx * c[3, 3] + dy * (2.0 * c[3, 4] * dx + dy * c[4, 4])
    return r2 * r2 * of_k + steep * (2.0 * mixed + steep * of_centre)


def _solve_radial(bins, used, half, middle):
    """Radial fit with the centre free where the flat constrains it, and with the coefficients that it constrains."""
    x, y, value, weight = bins.x[used], bins.y[used], bins.value[used], 1.0 / bins.sigma[used] ** 2
    notes = []
    free = np.array([True, True, True, True, False, False])
    for last in (3, 2, 1):
        solution = _at_centre(x, y, value, weight, half, middle, free)
        worst = _term_error(solution)
        if value.size > free.sum() and worst <= TERM_LIMIT:
            break
        free[last] = False
        notes.append(f"k{last} = 0: not constrained")
    solution = _at_centre(x, y, value, weight, half, middle, free)
    if not free[1]:
        return replace(solution, notes=tuple(notes))
    even = _at_centre(x, y, value, weight, half, middle, np.array([True] + [False] * 5)).chi2
    gain = (even - solution.chi2) / max(1.0, solution.chi2 / max(1, value.size - solution.n_free))
    best = None
    if gain > FLAT_LIMIT:
        best = _with_free_centre(x, y, value, weight, half, middle, free)
    if best is None:
        notes.append("centre not constrained: held at the middle of the frame")
    else:
        solution = best
    return replace(solution, notes=tuple(notes))


def _term_error(solution):
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.diag(solution.cov)[1:4]) / abs(solution.parameters[0])
    return np.inf if not np.isfinite(error).all() else float(error.max())


def _at_centre(x, y, value, weight, half, centre, free):
    """Linear fit of c and the free coefficients around a given centre."""
    start = np.array([0.0, 0.0, 0.0, 0.0, *centre])
    linear = free.copy()
    linear[4:] = False
    return _step(x, y, value, weight, half, start, linear)


def _step(x, y, value, weight, half, parameters, free):
    """One Gauss-Newton step in the free parameters; exact where only linear ones are free."""
    slopes = np.stack(_slopes(parameters, x, y, half))[free]
    if free[4]:
        slopes[-2:] *= half  # of the order of the others
    units = np.where(np.arange(6) < 4, 1.0, half)[free]
    residual = value - _radial(parameters, x, y, half)
    normal = (slopes * weight) @ slopes.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    inverse = np.linalg.pinv(normal / np.outer(scale, scale), rcond=1e-13, hermitian=True) / np.outer(
        scale, scale
    )
    if np.linalg.matrix_rank(normal / np.outer(scale, scale), tol=1e-13, hermitian=True) < free.sum():
        inverse = inverse + np.diag(np.full(free.sum(), np.inf))
    updated = parameters.copy()
    direction = np.where(np.isfinite(inverse), inverse, 0.0) @ (slopes @ (weight * residual))
    updated[free] += direction * units
    cov = np.zeros((6, 6))
    cov[np.ix_(free, free)] = inverse * np.outer(units, units)
    with np.errstate(over="ignore", invalid="ignore"):  # a centre that nothing constrains may go anywhere
        chi2 = float((weight * (value - _radial(updated, x, y, half)) ** 2).sum())
    return _Radial(updated, free.copy(), cov, chi2, half)


def _with_free_centre(x, y, value, weight, half, middle, free):
    """Levenberg-like fit with free centre from the best of a grid of starts; None where the centre is not constrained."""
    width, height = 2 * middle[0] + 1, 2 * middle[1] + 1
    places = [
        (middle[0] + a * width, middle[1] + b * height)
        for a in (-0.3, -0.1, 0.0, 0.1, 0.3)
        for b in (-0.3, -0.1, 0.0, 0.1, 0.3)
    ]
    # Some bins tell which is the best of them; an odd step sees all columns.
    some = [one[:: one.size // START_BINS | 1] for one in (x, y, value, weight)]
    best = min(places, key=lambda centre: _at_centre(*some, half, centre, free).chi2)
    solution = _at_centre(x, y, value, weight, half, best, free)
    all_free = free.copy()
    all_free[4:] = True
    if value.size <= all_free.sum():
        return None
    for _ in range(50):
        proposed = _step(x, y, value, weight, half, solution.parameters, all_free)
        shift = proposed.parameters[4:] - solution.parameters[4:]
        length = float(np.hypot(*shift)) / half
        if not np.isfinite(length):
            return None
        # Short steps in the centre, then the linear terms exactly: chi-square falls or the step is halved.
        fraction = min(1.0, 0.2 / max(length, 1e-12))
        while fraction > 1e-4:
            centre = solution.parameters[4:] + fraction * shift
            trial = _at_centre(x, y, value, weight, half, centre, free)
            if trial.chi2 <= solution.chi2:
                break
            fraction *= 0.5
        else:
            break
        solution = trial
        if length * fraction < 1e-7:
            break
    final = _step(x, y, value, weight, half, solution.parameters, all_free)
    final = replace(final, parameters=solution.parameters, chi2=solution.chi2)
    error = np.sqrt(np.diag(final.cov)[4:]) / half
    away = np.abs(final.parameters[4:] - middle) / (width, height)
    constrained = np.isfinite(error).all() and error.max() <= CENTRE_LIMIT and away.max() <= 0.5
    return final if constrained else None
