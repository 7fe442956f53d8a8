"""Frames that belong together: one kind, camera setting, temperature and exposure."""

import zlib
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError
from utils.fits_io.frame_sample import sample_group
from utils.fits_io.products import header_from_inputs, iso_time
from utils.kernels import groups as grouping

MJD_OF_1970 = 40587.0


@dataclass
class FrameGroup:
    """Frames of one temperature (and exposure).

    entries : list of ObservationManager entries.  images : list of FitsImage, in the same order.
    """

    entries: list
    images: list

    def __len__(self):
        return len(self.entries)

    @property
    def temperatures(self):
        """Temperature of each frame, (n,) [degC]."""
        return np.array([entry["temperature"] for entry in self.entries], dtype=np.float64)

    @property
    def temperature(self):
        """Mean temperature of the frames [degC]."""
        return float(self.temperatures.mean())

    @property
    def exposure(self):
        """Mean exposure time of the frames [s]."""
        exposures = [entry["exposure"] or 0.0 for entry in self.entries]
        # A mean of equal numbers need not be that number.
        return exposures[0] if min(exposures) == max(exposures) else float(np.mean(exposures))

    @property
    def times(self):
        """Unix time of each frame, (n,) [s], NaN where unknown."""
        return np.array(
            [np.nan if e["timestamp"] is None else e["timestamp"] for e in self.entries], dtype=np.float64
        )

    @property
    def drift(self):
        """Width of the group in temperature [degC]."""
        return float(np.ptp(self.temperatures))

    def subset(self, indices):
        """Return the group of the frames at ``indices``."""
        return FrameGroup([self.entries[i] for i in indices], [self.images[i] for i in indices])

    def cards(self):
        """Header cards of a product of this group: what is common, temperature, exposure, dates."""
        temperatures, times = self.temperatures, self.times
        cards = {
            **header_from_inputs(self.images),
            "NCOMBINE": (len(self), "frames combined"),
            "CALTYPE": (str(self.entries[0]["caltype"]).upper(), "kind of the frames"),
            "TEMP": (self.temperature, "[degC] mean temperature of the frames"),
            "TEMPSTD": (float(temperatures.std(ddof=1)) if len(self) > 1 else 0.0, "[degC] scatter"),
            "TEMPMIN": (float(temperatures.min()), "[degC] lowest"),
            "TEMPMAX": (float(temperatures.max()), "[degC] highest"),
            "EXPTIME": (self.exposure, "[s] exposure time"),
        }
        return {**cards, **date_cards(times)}

    def inputs(self, datasums):
        """Rows of the INPUTS table; datasums : (n,) of int or str, None where unknown."""
        return [
            {
                "file": entry["original_path"],
                "temperature": entry["temperature"],
                "exposure": entry["exposure"],
                "time": entry["timestamp"],
                "datasum": None if datasum is None else str(datasum),
            }
            for entry, datasum in zip(self.entries, datasums, strict=True)
        ]


def date_cards(times):
    """DATE-BEG, DATE-AVG and DATE-END of Unix times [s]; nothing where no time is known."""
    times = np.asarray(times, dtype=np.float64)
    times = times[np.isfinite(times)]
    if times.size == 0:
        return {}
    return {
        "DATE-BEG": (iso_time(times.min()), "UTC of the first frame"),
        "DATE-AVG": (iso_time(times.mean()), "UTC, mean"),
        "DATE-END": (iso_time(times.max()), "UTC of the last frame"),
    }


def dates_of_masters(headers):
    """DATE-BEG, DATE-AVG and DATE-END of products that several masters went into; nothing where one has none.

    headers : mappings with NCOMBINE, the dates and MJD-AVG of each master.
    """
    if not all("DATE-BEG" in header and "MJD-AVG" in header for header in headers):
        return {}
    mean = np.average([h["MJD-AVG"] for h in headers], weights=[h["NCOMBINE"] for h in headers])
    return {
        "DATE-BEG": (min(h["DATE-BEG"] for h in headers), "UTC of the first frame"),
        "DATE-AVG": (iso_time((mean - MJD_OF_1970) * 86400.0), "UTC, mean"),
        "DATE-END": (max(h["DATE-END"] for h in headers), "UTC of the last frame"),
    }


def group_entries(entries, images, *, temp_tolerance, by_exposure=False):
    """Group frames by temperature, and by exposure where asked.

    entries : ObservationManager entries of one kind with a temperature.  images : dict path -> FitsImage.
    temp_tolerance : [degC].  Returns a list of `FrameGroup`, coldest first; frames in order of time, then of path.
    Raises InputError when there is no entry.
    """
    if not entries:
        raise InputError("no frames to group")
    entries = sorted(entries, key=_time_order)
    temperatures = [entry["temperature"] for entry in entries]
    exposures = [entry["exposure"] or 0.0 for entry in entries] if by_exposure else None
    found = grouping.group_frames(temperatures, exposures, temp_tolerance=temp_tolerance)
    return [
        FrameGroup([entries[i] for i in member], [images[entries[i]["original_path"]] for i in member])
        for member in (sorted(indices) for indices in found)
    ]


DUPLICATE = "DUPLICATE"
"""Reason code of a frame that is another one under a second name."""
DIFFERENT = 50
"""Samples in which two exposures must differ before equal ones are a copy: by chance one in e^50 is."""


def sample_frames(group, jobs=1, ceiling=None):
    """Read a sample of every frame of a group, and leave out those whose bytes are of no use.

    jobs, ceiling : as `sample_group`.
    Returns the group without those left out, which may be empty; its `GroupSample`; and (path, reason) of the frames left
    out: vanished, changed since they were listed, unreadable, not the data of their DATASUM, or the data of another one.
    """
    sample = sample_group(group.images, jobs, ceiling=ceiling)
    paths = [entry["original_path"] for entry in group.entries]
    faults = dict(sample.faults)
    for index, first in _repeated(sample).items():
        faults[index] = f"{DUPLICATE}: the same data as {paths[first]}, counted once"
    if not faults:
        return group, sample, []
    rejected = [(paths[index], fault) for index, fault in sorted(faults.items())]
    keep = [index for index in range(len(group)) if index not in faults]
    return group.subset(keep), sample.at(keep), rejected


def _repeated(sample):
    """Frames whose data are those of an earlier one: {number: number of that}.

    No two exposures have the same noise, where there is noise: others of the group must differ in many samples, and most
    from each other.
    """
    first, found = {}, {}
    for index, (rows, data_sum) in enumerate(zip(sample.rows, sample.datasums, strict=True)):
        if index in sample.faults:
            continue
        # Compressed frames have no sum of their own: whole rows in many places tell as well.
        earlier = first.setdefault((zlib.crc32(rows), zlib.adler32(rows)), index)
        sums = (data_sum, sample.datasums[earlier])
        if earlier != index and (None in sums or sums[0] == sums[1]):
            found[index] = earlier
    if not found or 2 * len(found) >= len(sample.rows):
        return {}
    one, other = list(first.values())[:2]
    return found if np.count_nonzero(sample.rows[one] != sample.rows[other]) >= DIFFERENT else {}


def _time_order(entry):
    time = entry["timestamp"]
    return (time is None, time or 0.0, entry["original_path"])
