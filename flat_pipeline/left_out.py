"""The model against masters that took no part in it: all of a temperature, or of an exposure, left out at a time."""

from dataclasses import dataclass, field

import numpy as np

from flat_pipeline import models
from utils.fits_io.frame_sample import spread_rows
from utils.kernels import evaluation, flat_model
from utils.kernels import groups as grouping

PIXELS = 1 << 16
"""Pixels of a master that are judged, in rows spread over the frame."""
TRUSTED_CHI2 = 1.5
"""Extrapolation is trusted where both outer groups, left out, have a reduced chi-square below this,"""
TRUSTED_ERROR = 5.0
"""and where their predictions are no less certain than so many times the masters: else a miss could not be seen."""
FEWEST = 3
AXES = ("temperatures", "exposures")


@dataclass(eq=False)
class Judged:
    """What fits without a group tell of the masters of one filter.

    compared : index of a master -> `Comparison` with the prediction, where one is possible.  outside : indices of masters
    that lay beyond all those fitted.  ends : axis -> list of (reduced chi2, rms of prediction error / master's error,
    rms miss) of the outer groups; no entry where there are too few groups.
    """

    compared: dict = field(default_factory=dict)
    outside: set = field(default_factory=set)
    ends: dict = field(default_factory=dict)


def judge(masters):
    """Predict every master of one filter from fits without the masters of its temperature.

    Where the others do not carry the terms of the model, the masters of its exposure are left out instead.
    Returns `Judged`.
    """
    ny, nx = masters.shape
    rows = spread_rows(ny, max(1, PIXELS // nx))
    block = masters.of_rows(rows)
    whole = models.design_of(masters)
    judged = Judged()
    for what, axis, tolerance in (
        ("temperatures", masters.temperature, masters.tolerance()),
        ("exposures", np.log(masters.exposure), models.EXPOSURE_TOLERANCE),
    ):
        members = grouping.group_by_gap(axis, tolerance)
        for number, member in enumerate(members):
            rest = np.setdiff1d(np.arange(axis.size), member)
            if not rest.size:
                continue
            design = models.design_of(masters.subset(rest))
            if design.fitted != whole.fitted:
                continue
            outer = number in (0, len(members) - 1)
            found, errors = _predicted(masters, block, rest, member, design)
            if outer and len(members) >= FEWEST:
                together = evaluation.Comparison()
                for one in found:
                    together.merge(one)
                numbers = together.metrics()
                judged.ends.setdefault(what, []).append((numbers["chi2_red"], errors, numbers["rmse"]))
            for index, one in zip(member, found, strict=True):
                if index not in judged.compared and one.pixels:
                    judged.compared[index] = one
                    if outer:
                        judged.outside.add(index)
    return judged


def _predicted(masters, block, rest, member, design):
    """`Comparison` of each master at ``member`` with the fit to those at ``rest``; error of the prediction over its own."""
    values, sigmas, dqs = block
    fit = flat_model.fit_flat_model(values[rest], sigmas[rest], design)
    found, ratios = [], []
    for index in member:
        at = masters.temperature[index], masters.exposure[index]
        predicted, error = flat_model.predict(fit.coeff, fit.cov, design, *at)
        use = models.speaking(dqs[index]).reshape(-1)
        real, own = values[index].reshape(-1)[use], sigmas[index].reshape(-1)[use]
        one = evaluation.Comparison()
        one.add(real, real - predicted[use], np.hypot(own, error[use]))
        found.append(one)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = error[use] / own
        ratio = ratio[np.isfinite(ratio)]
        ratios.append(float(np.median(ratio)) if ratio.size else np.inf)
    return found, max(ratios)


def verdict(what, judged):
    """Whether extrapolation along an axis can be trusted, in words; judged : list of `Judged`, one a filter."""
    ends = [end for one in judged for end in one.ends.get(what, ())]
    if not ends:
        return f"cannot be judged: fewer than {FEWEST} {what}, or the others do not carry the model"
    chi2, error, miss = (max(end[part] for end in ends) for part in range(3))
    tail = f"when left out (rms miss {miss:.3%}, reduced chi2 {chi2:.2f})"
    if not chi2 <= TRUSTED_CHI2:
        return f"not trusted: the outer {what} are missed by more than their errors {tail}"
    if not error <= TRUSTED_ERROR:
        return f"cannot be judged: predictions of the outer {what} are {error:.1f} times less certain than masters {tail}"
    return f"trusted: the outer {what} are predicted within their errors {tail}"
