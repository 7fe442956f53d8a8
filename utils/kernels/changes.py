"""Normalised flats of one group, frame after frame: cleaned of hits, averaged by epoch, their noise measured on the way."""

import math
from dataclasses import dataclass

import numpy as np

from utils.kernels import noise
from utils.kernels.pieces import in_pieces

HIT_SIGMA = 5.0
"""A sample so far from the median of itself and its neighbours in time does not count."""
BRIGHT_SIGMA = 4.0
"""The same on the bright side: hits only add charge."""
LEAST_RESPONSE = 0.05
"""Pixels darker than this part of the flat's level tell nothing of changes."""
PRIOR_FRAMES = 4
"""From so many frames on the scatter of single pixels is looked at."""


@dataclass(frozen=True)
class FrameNoise:
    """Expected noise of a normalised frame: variance = read + photon * value.

    read : (read noise / level)^2.  photon : 1 / (electrons per ADU * level).
    """

    read: float
    photon: float

    @property
    def variance(self):
        """Variance of a pixel at the frame's level."""
        return self.read + self.photon


def clean_hits(frame, before, after, expected):
    """Put the median of three frames where a sample differs from it too much, in place; returns how many.

    frame, before, after : (ny, nx) float32, normalised; which of the others came first does not matter.
    expected : `FrameNoise` of ``frame``.
    """
    count = 0
    for x, a, b in in_pieces(frame, before, after):
        middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), x))
        limit = np.float32(expected.read) + np.float32(expected.photon) * np.maximum(middle, np.float32(0.0))
        away = x - middle
        allowed = np.where(away > 0, np.float32(BRIGHT_SIGMA**2), np.float32(HIT_SIGMA**2))
        hit = np.square(away) > allowed * limit
        count += int(np.count_nonzero(hit))
        x[hit] = middle[hit]
    return count


@dataclass(eq=False)
class GroupChange:
    """What a group of like flats tells.

    reference : (ny, nx) float32, mean of its first epoch, 1 at its level.  epochs : (k,) int, in order.  changes : list of
    (ny, nx) float32, each epoch's mean over the reference less 1 (0 for the first); information : (k,), 1 / variance at a
    pixel of response 1, as measured; frames : (k,) int.  weight : (ny, nx) float32, inverse variance of a pixel over that
    at response 1; 0 = bad.  quiet, quiet_variance : a difference of frames without any change, and its variance.
    noise_ratio : measured noise over the expected.  hits : samples replaced.  noisy : number of pixels noisier than others.
    """

    reference: np.ndarray
    epochs: np.ndarray
    changes: list
    information: np.ndarray
    frames: np.ndarray
    weight: np.ndarray
    quiet: np.ndarray
    quiet_variance: float
    noise_ratio: float
    hits: int
    noisy: int


class GroupMeans:
    """Averages the frames of one group by epoch; memory does not grow with their number but with that of the epochs.

    shape : (ny, nx).  expected : list of `FrameNoise`, one a frame, in order of time.  epochs : (n,) int, not falling.
    forgive_step : a pixel that changed once is not taken for a noisy one.
    Call `add` with each frame in that order, or `join` the sums of rows that others have added, then `finish`.
    """

    def __init__(self, shape, expected, epochs, forgive_step=False):
        self.shape, self.expected = tuple(shape), list(expected)
        self.epochs = np.asarray(epochs)
        self.variance = np.array([one.variance for one in self.expected])
        self.bad = np.zeros(self.shape, bool)
        self.sums = {}
        self.squares = np.zeros(self.shape, np.float32)
        self.largest = np.zeros(self.shape, np.float32) if forgive_step else None
        self.quiet = np.zeros(self.shape, np.float32)
        self.quiet_information, self.hits = 0.0, 0
        self._window, self._taken, self._last, self._sign, self._paired = [], 0, None, 1.0, False

    def add(self, frame):
        """Take one normalised frame (ny, nx) float32, which becomes this object's own."""
        unusable = ~np.isfinite(frame)
        if unusable.any():
            self.bad |= unusable
            frame[unusable] = 0.0
        if len(self._window) == 3:
            self._window.pop(0)
        self._window.append(frame)
        if len(self._window) == 3:
            # Each is judged against the frames as they came: a cleaned one would say what it was cleaned by.
            first, second, third = self._window
            if self._taken == 0:
                self._take(self._clean(first, second, third))
            self._take(self._clean(second, first, third))

    def _clean(self, frame, before, after):
        cleaned = frame.copy()
        self.hits += clean_hits(cleaned, before, after, self.expected[self._taken])
        return cleaned

    def _take(self, frame):
        index = self._taken
        epoch = int(self.epochs[index])
        self._taken += 1
        weight = np.float32(1.0 / self.variance[index])
        if epoch not in self.sums:
            self.sums[epoch] = np.zeros(self.shape, np.float32)
        pair = self._last is not None
        information = 1.0 / (self.variance[index] + self.variance[index - 1]) if pair else 0.0
        # Pairs that share no frame, both of one epoch: between epochs things may change.
        alternate = pair and not self._paired and int(self.epochs[index - 1]) == epoch
        self._paired = alternate
        planes = [self.sums[epoch], self.squares, self.quiet, frame, self._last if pair else frame]
        planes += [] if self.largest is None else [self.largest]
        for total, squares, quiet, now, before, *largest in in_pieces(*planes):
            total += weight * now
            if pair:
                difference = now - before
                square = np.float32(information) * difference * difference
                squares += square
                for most in largest:
                    np.maximum(most, square, out=most)
                if alternate:
                    quiet += np.float32(self._sign * information) * difference
        if alternate:
            self._sign = -self._sign
            self.quiet_information += information
        self._last = frame

    def flush(self):
        """Take the frames that wait for a neighbour: after the last one, before `join`."""
        if len(self._window) == 3:
            self._take(self._clean(self._window[2], *self._window[:2]))
        else:
            for frame in self._window:
                self._take(frame)
        self._window, self._last = [], None

    def join(self, rows, part):
        """Put the sums of some rows of all frames in their place; part : `GroupMeans` of these rows, flushed."""
        for name in ("bad", "squares", "quiet", "largest"):
            if getattr(self, name) is not None:
                getattr(self, name)[rows] = getattr(part, name)
        for epoch, plane in part.sums.items():
            if epoch not in self.sums:
                self.sums[epoch] = np.zeros(self.shape, np.float32)
            self.sums[epoch][rows] = plane
        self.hits += part.hits
        self.quiet_information = part.quiet_information

    def finish(self, bad=None, reference=None):
        """Return the `GroupChange`.

        bad : (ny, nx) bool, pixels known to be unusable, or None.  reference : (ny, nx) of another group, to compare all
        epochs with; None = the first epoch.
        """
        self.flush()
        n = len(self.expected)
        epochs = np.array(sorted(self.sums))
        information = np.array([(1.0 / self.variance[self.epochs == e]).sum() for e in epochs])
        means = [self.sums.pop(int(e)) for e in epochs]
        for mean, total in zip(means, information, strict=True):
            mean *= np.float32(1.0 / total)
        own = means[0] if reference is None else reference
        bad = self.bad if bad is None else self.bad | bad
        bad = bad | ~(own > LEAST_RESPONSE)
        weight, ratio, noisy = self._weights(own, bad, n)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(bad, np.float32(0.0), np.float32(1.0) / own)
        changes = [np.zeros(self.shape, np.float32)] if reference is None else []
        for mean in means[len(changes) :]:
            mean *= inverse
            mean -= np.float32(1.0)
            mean[bad] = 0.0
            changes.append(mean)
        quiet, quiet_variance = self.quiet * inverse, 0.0
        if self.quiet_information > 0:
            quiet *= np.float32(1.0 / self.quiet_information)
            quiet_variance = ratio**2 / self.quiet_information
        frames = np.array([(self.epochs == e).sum() for e in epochs])
        return GroupChange(
            own,
            epochs,
            changes,
            information / ratio**2,
            frames,
            weight,
            quiet,
            quiet_variance,
            ratio,
            self.hits,
            noisy,
        )

    def _weights(self, reference, bad, n):
        """Inverse variance of every pixel's change over that at response 1, the noise over the expected, noisy pixels."""
        read = sum(one.read for one in self.expected)
        photon = sum(one.photon for one in self.expected)
        expected = (np.float32(read) + np.float32(photon) * reference) / np.float32(read + photon)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.where(bad, np.float32(0.0), np.square(reference) / expected)
            if n < 2:
                return weight, 1.0, 0
            ratio = self.squares / (np.float32(n - 1) * expected)
        ratio[bad] = np.nan
        dof = _free(n)
        thin = tuple(slice(None, None, size // 512 | 1) for size in self.shape)
        if n < PRIOR_FRAMES:
            return weight, _median_ratio(ratio[thin], n - 1), 0
        prior, prior_dof = noise.variance_prior(ratio[thin], dof)
        if not prior > 0:
            return weight, 1.0, 0
        steady = None if self.largest is None else self._steady(expected, bad, thin, prior, n)
        noisy_count = 0
        for w, r, *s in in_pieces(weight, ratio, *(() if steady is None else (steady,))):
            moderated, noisy = noise.moderate_variance(r, dof, prior, prior_dof)
            if s and noisy.any():
                again = noise.moderate_variance(s[0][noisy], _free(n - 1), prior, prior_dof)
                moderated[noisy], noisy[noisy] = again
            noisy_count += int(noisy.sum())
            w *= np.float32(prior) / moderated
        return weight, math.sqrt(prior), noisy_count

    def _steady(self, expected, bad, thin, prior, n):
        """Scatter of every pixel over the expected without its largest difference, on the scale of ``prior``."""
        steady = (self.squares - self.largest) / (np.float32(max(n - 2, 1)) * expected)
        steady[bad] = np.nan
        own, _ = noise.variance_prior(steady[thin], _free(n - 1))
        return steady if not own > 0 else steady * np.float32(prior / own)


def _free(n):
    """Degrees of freedom of n successive frames: differences share frames, 2/3 of their number (von Neumann 1941)."""
    return max(1, round((n - 1) / 1.5))


def _median_ratio(ratio, dof):
    """Root of a robust mean of chi-square ratios of few degrees of freedom."""
    from scipy import special

    known = ratio[np.isfinite(ratio)]
    if known.size == 0 or not (found := float(np.median(known))) > 0:
        return 1.0
    return math.sqrt(found * dof / (2.0 * float(special.gammaincinv(dof / 2.0, 0.5))))
