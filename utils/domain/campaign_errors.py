"""The errors that a proposed campaign allows, and its cheapest form that meets wanted errors."""

import math
from dataclasses import dataclass, field

import numpy as np

from utils.kernels import plan_errors

TYPICAL = {
    "gain": 1.0,
    "read_noise": 2.5,
    "full_well": 15000.0,
    "rate": 0.05,
    "rate_temp": 0.0,
    "doubling": 6.0,
}
"""A cooled CMOS camera of today [e-/ADU, ADU, ADU, ADU/s, degC, degC]."""
STEP_VARIANCE = 1.0 / 12.0
"""Of a sample by the step of the converter, which the read noise leaves out [ADU^2]."""
B_SCATTER, GAMMA_SCATTER = 0.03, 0.01
"""Scatter over the pixels of a sensor: of B relative to itself, of gamma.  The fit learns it and draws pixels to it."""
HOT = 100.0
"""A hot pixel has so many times the dark rate of an ordinary one."""


@dataclass(frozen=True)
class Camera:
    """Noise and dark current of ordinary pixels, in product ADU.

    gain [e-/ADU], read_noise [ADU], full_well [ADU], rate [ADU/s] at rate_temp [degC], doubling [degC].
    origin : where the numbers came from, in words.
    """

    gain: float
    read_noise: float
    full_well: float
    rate: float
    rate_temp: float
    doubling: float
    origin: str


@dataclass
class Frames:
    """A proposed plan: temperatures [degC], exposures [s] of darks, frames of each group, seconds between frames."""

    temps: tuple
    exptimes: tuple
    bias: int = 20
    dark: int = 10
    flat: int = 20
    flat_level: float | None = None
    overhead: float = 1.0
    groups: list = field(init=False)

    def __post_init__(self):
        self.groups = [("bias", t, 0.0) for t in self.temps] if self.bias else []
        if self.dark:
            self.groups += [("dark", t, e) for t in self.temps for e in self.exptimes]

    def counts(self):
        """Frames of each group."""
        return [self.bias if kind == "bias" else self.dark for kind, _, _ in self.groups]

    def cost(self):
        """Seconds of one frame of each group."""
        return [exposure + self.overhead for _, _, exposure in self.groups]


def information(camera, plan, factor=1.0):
    """Fisher information of one frame of each group (n, 5, 5), and the law; factor : of the dark rate (hot pixels)."""
    law = plan_errors.DarkLaw(
        np.array([camera.rate * factor]),
        np.array([math.log(2.0) / camera.doubling]),
        np.zeros(1),
        camera.rate_temp,
    )
    read = camera.read_noise**2 + STEP_VARIANCE
    terms = np.zeros((len(plan.groups), 5, 5))
    for term, (kind, temperature, exposure) in zip(terms, plan.groups, strict=True):
        if kind == "bias":
            term[3:, 3:] = plan_errors.bias_terms([temperature], [[read]])[0, 0]
            continue
        signal = float(law.rate(temperature, exposure)[0]) * exposure
        variance = read + signal / camera.gain if signal < camera.full_well else math.inf
        term[:] = plan_errors.dark_terms(law, [temperature], [exposure], [[variance]])[0, 0]
    return terms, law


def known(camera):
    """Information (5, 5) on B and gamma of a pixel that the other pixels bring: `plan_errors.known_root`."""
    scatter = B_SCATTER * math.log(2.0) / camera.doubling
    return np.diag([0.0, scatter**-2, GAMMA_SCATTER**-2, 0.0, 0.0])


def expected_errors(camera, plan, at):
    """Rows of the table: what each product will be and how well it will be known; ``at`` : temperatures, exposures."""
    rows = []
    for pixel, factor in (("ordinary", 1.0), (f"hot ({HOT:g} x)", HOT)):
        terms, law = information(camera, plan, factor)
        counts = np.array(plan.counts(), float)
        bias = np.array([kind == "bias" for kind, _, _ in plan.groups])
        root = plan_errors.known_root(np.tensordot(counts, terms, 1)[None], known(camera))
        if factor == 1.0:
            alone = np.tensordot(counts[bias], terms[bias], 1)[None, 3:, 3:]
            alone = plan_errors.covariance_root(alone)
            for t in at[0]:
                error = plan_errors.error_along(alone, plan_errors.bias_direction(t))[0]
                rows.append(_row("bias", pixel, t, None, None, error, "adu"))
        for t in at[0]:
            for e in at[1]:
                direction = plan_errors.dark_direction(law, t, e)
                rate = float(law.rate(t, e)[0])
                error = plan_errors.error_along(root, direction)[0]
                rows.append(_row("dark current", pixel, t, e, rate, error, "adu/s"))
                whole = e * direction + np.array([0.0, 0.0, 0.0, 1.0, t])
                error = plan_errors.error_along(root, whole)[0]
                rows.append(_row("bias + dark of a frame", pixel, t, e, rate * e, error, "adu"))
    if plan.flat:
        level = plan.flat_level or 0.5 * camera.full_well
        error = plan_errors.flat_error(
            level, plan.flat, camera.read_noise**2 + STEP_VARIANCE, 1.0 / camera.gain
        )
        rows.append(
            _row(f"master flat of {plan.flat} at {level:g} adu", "ordinary", None, None, 1.0, error, "")
        )
    return rows


def _row(product, pixel, temperature, exposure, value, error, unit):
    relative = 100.0 * error / value if value and math.isfinite(error) else None
    return {
        "product": product,
        "pixel": pixel,
        "temperature": temperature,
        "exposure": exposure,
        "value": value,
        "error": float(error),
        "unit": unit,
        "relative_percent": relative,
    }


def cheapest(camera, plan, at, wanted):
    """Numbers of frames of each group of the plan that meet the wanted errors in the least time.

    wanted : {"bias": ADU, "dark": ADU/s, "flat": percent}, None where nothing is wanted; met for ordinary pixels at
    all places of ``at``.  Returns rows of the plan, and the reasons why a wanted error cannot be had.
    """
    rows, reasons, targets = [], [], []
    terms, law = information(camera, plan)
    if wanted["bias"]:
        targets += [(np.array([0, 0, 0, 1.0, t]), wanted["bias"]) for t in at[0]]
    if wanted["dark"]:
        targets += [(plan_errors.dark_direction(law, t, e)[0], wanted["dark"]) for t in at[0] for e in at[1]]
    if targets and not wanted["dark"]:
        # Only the bias is asked for: darks tell nothing of it that is worth their time.
        chosen = [index for index, group in enumerate(plan.groups) if group[0] == "bias"]
        terms, targets = terms[chosen][:, 3:, 3:], [(d[3:], w) for d, w in targets]
        prior = None
    else:
        prior = known(camera)
        chosen = list(range(len(plan.groups)))
    if targets:
        counts = plan_errors.cheapest_counts(terms, np.array(plan.cost())[chosen], targets, prior=prior)
        if counts is None:
            reasons.append(
                "temperatures and exposures of the plan do not determine the model: more of them are needed"
            )
        else:
            for index, n in zip(chosen, counts, strict=True):
                if n:
                    kind, t, e = plan.groups[index]
                    hours = n * plan.cost()[index] / 3600.0
                    rows.append(
                        {"kind": kind, "temperature": t, "exposure": e, "frames": int(n), "hours": hours}
                    )
    if wanted["flat"]:
        level = plan.flat_level or 0.5 * camera.full_well
        n = plan_errors.flat_frames(
            level, wanted["flat"] / 100.0, camera.read_noise**2 + STEP_VARIANCE, 1.0 / camera.gain
        )
        rows.append({"kind": f"flat at {level:g} adu", "frames": n, "hours": n * plan.overhead / 3600.0})
    return rows, reasons
