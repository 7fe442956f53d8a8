"""What clipping costs and what it does to coarse integers; errors of medians. Simulated samples, no files."""

import numpy as np

from utils.kernels import combine, noise

PIXELS = 400_000
CLIP = 4.0


def mad_clip(samples, k):
    """Clip at k 1.4826 MAD around the median, without a floor: the usual rule, for comparison."""
    samples = samples.astype(np.float64)
    centre = np.median(samples, axis=0)
    deviation = np.abs(samples - centre)
    used = deviation <= k * 1.4826 * np.median(deviation, axis=0)
    return np.where(used, samples, 0.0).sum(axis=0) / used.sum(axis=0), used.mean()


def clip_efficiency(n, sigma, step, seed=1):
    """Compare rules on clean samples of noise ``sigma`` whose true levels are uniform over a step.

    step : of the converter, 0 = none [same unit].  Returns a dict of efficiency (variance of the plain mean over that
    of the clipped one), rejected fraction and worst pixel error beyond what the plain mean has, for both rules.
    """
    rng = np.random.default_rng(seed)
    true = rng.uniform(-0.5, 0.5, PIXELS)
    samples = true + sigma * rng.standard_normal((n, PIXELS))
    if step:
        samples = step * np.rint(samples / step)
    stack = samples.astype(np.int16) if step else samples.astype(np.float32)
    floor = noise.pooled_scatter(samples[:, :50_000]) ** 2
    rule = combine.CombineRule("sigclip", CLIP, floor, step=float(step))
    ours, _, n_used, _ = combine.combine(stack, rule)
    theirs, used = mad_clip(samples, CLIP)
    plain = samples.mean(axis=0)
    mse = {name: float(np.mean((v - true) ** 2)) for name, v in (("p", plain), ("o", ours), ("t", theirs))}
    return {
        "efficiency": mse["p"] / mse["o"],
        "rejected": 1.0 - float(n_used.mean()) / n,
        "mad_efficiency": mse["p"] / mse["t"],
        "mad_rejected": 1.0 - float(used),
    }


def median_factors(counts=(3, 5, 10, 20, 50, 100), seed=2):
    """Rows (n, computed factor, factor of simulated medians, its error)."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in counts:
        pixels = 200_000
        medians = np.median(rng.standard_normal((n, pixels), dtype=np.float32), axis=0)
        simulated = float(np.std(medians)) * np.sqrt(n)
        rows.append((n, noise.median_factor(n), simulated, simulated / np.sqrt(2 * pixels)))
    return rows


def clip_factors(limits=(2.5, 3.0, 4.0), seed=3):
    """Rows (k, computed factor, 1 / scatter of Gaussian samples inside k sigma)."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(4_000_000)
    return [(k, noise.clip_factor(k), float(1 / np.std(samples[np.abs(samples) <= k]))) for k in limits]
