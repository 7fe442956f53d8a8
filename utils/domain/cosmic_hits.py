"""Cosmic hits in one evenly lit frame, by their sharp edges (L.A.Cosmic, astroscrappy)."""

import numpy as np

SIGCLIP, SIGFRAC, OBJLIM, ROUNDS = 4.5, 0.3, 2.0, 3
"""Limits of the search: Laplacian over noise, the same for neighbours as a part, contrast to fine structure, rounds."""


def hit_mask(image, level, variance):
    """Pixels of one frame that cosmic hits raise.

    image : (ny, nx) frame divided by the response, so that an undisturbed pixel is 1; NaN = no value.  level : [ADU] of 1.
    variance : (ny, nx) or number, expected variance of ``image * level`` [ADU^2].
    Returns (ny, nx) bool.
    Reference: van Dokkum (2001), PASP 113, 1420.
    """
    from astroscrappy import detect_cosmics

    bad = ~np.isfinite(image)
    counts = np.where(bad, level, image * level).astype(np.float32)
    noise = np.broadcast_to(np.asarray(variance, np.float32), counts.shape)
    found, _ = detect_cosmics(
        counts,
        inmask=np.ascontiguousarray(bad),
        invar=np.array(np.nan_to_num(noise, nan=float(np.nanmedian(noise)))),
        sigclip=SIGCLIP,
        sigfrac=SIGFRAC,
        objlim=OBJLIM,
        gain=1.0,
        satlevel=np.inf,
        niter=ROUNDS,
        cleantype="meanmask",
    )
    return found & ~bad
