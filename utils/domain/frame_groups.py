"""Frames that belong together: one kind, camera setting, temperature and exposure."""

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


def sample_frames(group, jobs=1, ceiling=None):
    """Read a sample of every frame of a group, and leave out those whose bytes are of no use.

    jobs, ceiling : as `sample_group`.
    Returns the group without those left out, which may be empty; its `GroupSample`; and (path, reason) of the frames left
    out: vanished, changed since they were listed, unreadable, or not the data of their DATASUM.
    """
    sample = sample_group(group.images, jobs, ceiling=ceiling)
    if not sample.faults:
        return group, sample, []
    rejected = [(group.entries[i]["original_path"], fault) for i, fault in sorted(sample.faults.items())]
    keep = [index for index in range(len(group)) if index not in sample.faults]
    return group.subset(keep), sample.at(keep), rejected


def _time_order(entry):
    time = entry["timestamp"]
    return (time is None, time or 0.0, entry["original_path"])
