"""All frames below a folder: what each is, at which temperature and exposure; and why others are no use.

Headers only. A frame is a mapping (``Entry``) with original_path, original_name, identifier (its path below
the base folder), category, subcat or field_name and mode, caltype, temperature [degC], exposure =
exposure_time [s], filter, gain (camera setting), egain [e-/ADU], timestamp [Unix s, UTC], binning, shape
(rows, columns) and what ``utils.fits_io.keywords.describe`` finds beside. None where the header does not
tell.
"""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from utils.errors import CalibrationError, InputError, OptionError
from utils.fits_io.find_frames import FoundFile, FoundFrames, find_fits
from utils.fits_io.frame_index import FrameIndex, indexes_above
from utils.fits_io.header_scan import FitsImage, UnusableFits, scan_headers
from utils.fits_io.keywords import MODES, NO_FILTER, as_number, describe, field_of, is_kind_alone, mode_of
from utils.fits_io.scan_cache import ScanCache, user_cache_folder

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("calibration.observations")

Entry = dict[str, Any]

CALIBRATION, FIELDS = "CALIBRATION", "FIELDS"
SUBCATS = {"bias": "bias", "dark": "darks", "flat": "flats"}  # caltype -> subcat
SELECT_KEYS = ("gain", "binning", "filter", "camera", "shape")
COLUMNS = (
    *("original_path", "original_name", "identifier", "category", "field_name", "subcat", "mode", "caltype"),
    *("temperature", "exposure", "exposure_time", "filter", "gain", "egain", "timestamp", "time_source"),
    *("binning", "shape", "full_shape", "camera", "saturate", "bit_depth", "badsize", "frame_number"),
    *("datasum", "kind_source"),
)
NUMBERS = ("temperature", "exposure", "exposure_time", "gain", "egain", "timestamp", "saturate")

# --- values of entries ----------------------------------------------------------------------------


def show_value(value: Any) -> str:
    """A value of an entry as --select takes it: shape as ROWSxCOLUMNS, 100.0 as 100, None as none."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def one_value(entries: Iterable[Entry], key: str) -> Any:
    """The value that all entries share under key.

    Raises InputError naming two values with a file each where they differ, or where there is no entry.
    """
    first = None
    for entry in entries:
        if first is None:
            first = entry
        elif entry[key] != first[key]:
            values = [show_value(one[key]) for one in (first, entry)]
            choose = f"; choose with --select {key}={values[0]}" if key in SELECT_KEYS else ""
            raise InputError(
                f"{key} differs, expected one value: {values[0]} in {first['original_path']},"
                f" {values[1]} in {entry['original_path']}{choose}"
            )
    if first is None:
        raise InputError(f"no frames, expected at least one to tell {key}")
    return first[key]


def _same(value: Any, wanted: str) -> bool:
    shown = show_value(value)
    if isinstance(value, tuple) or re.fullmatch(r"\d+x\d+", shown):
        found, asked = re.findall(r"\d+", shown), re.findall(r"\d+", wanted)
        return [int(n) for n in found] == [int(n) for n in (asked * 2 if len(asked) == 1 else asked)]
    if isinstance(value, float):
        return as_number(wanted) == value
    return shown.strip().lower() == wanted.lower()


def parse_select(select: Iterable[str] | None) -> dict[str, list[str]]:
    """{"gain": ["100"], ...} of KEY=VALUE texts. Raises OptionError for another key or form."""
    chosen: dict[str, list[str]] = {}
    for text in select or ():
        key, equals, value = text.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or not value or key not in SELECT_KEYS:
            raise OptionError(f"--select {text}: expected KEY=VALUE with KEY one of {', '.join(SELECT_KEYS)}")
        chosen.setdefault(key, []).append(value)
    return chosen


# --- manager --------------------------------------------------------------------------------------


class ObservationManager:
    """Frames below base_path, by category.

    Parameters
    ----------
    base_path : folder to look through; hidden folders and temporary files are left out.
    cache_dir : folder for the headers remembered between runs (default: the user's cache folder). It must
    not lie
        in the input tree, unless in a folder of exclude.
    exclude : folders below base_path that hold no frames, such as the output folder.
    jobs : threads of the header scan (default: by the speed of the disk).
    select : texts "KEY=VALUE" (gain, binning, filter, camera, shape as ROWSxCOLUMNS): all keys must fit, of
    several
        values of one key any; filter leaves biases and darks in. What is not chosen is no rejection:
        ``deselected`` counts it.

    Attributes
    ----------
    entries : list of Entry, in order of identifier.   images : original_path -> FitsImage of the entries.
    rejected : list of {"path", "reason"}.   skipped_products : number of files with PRODTYPE, which are no
    frames.

    Raises InputError (no such folder; nothing fits select) and OptionError (select, cache_dir).
    """

    def __init__(
        self,
        base_path: str | os.PathLike,
        *,
        cache_dir: str | os.PathLike | None = None,
        exclude: Iterable[str | os.PathLike] = (),
        jobs: int | None = None,
        select: Iterable[str] | None = None,
    ):
        self.base_path = os.path.abspath(base_path)
        self.exclude = tuple(exclude)
        self.jobs = jobs
        self.select = parse_select(select)
        self._cache_folder = self._place_of_cache(cache_dir)
        self._clear()

    def _clear(self) -> None:
        self.entries: list[Entry] = []
        self.rejected: list[dict[str, str]] = []
        self.images: dict[str, FitsImage] = {}
        self.skipped_products = 0
        self.deselected = 0
        self._loaded = False

    def _place_of_cache(self, cache_dir: str | os.PathLike | None) -> str | None:
        """Folder of the cache; None where the user's own cache folder lies in the input tree."""
        folder = os.path.realpath(user_cache_folder() if cache_dir is None else cache_dir)
        if not _inside(folder, self.base_path) or any(
            _inside(folder, path) and _inside(path, self.base_path) for path in self.exclude
        ):
            return folder
        if cache_dir is not None:
            raise OptionError(
                f"{folder}: the cache lies in the input folder {self.base_path}, expected outside"
            )
        return None

    def load_and_organize(
        self, progress: Callable[[Iterable, int, str], Iterable] | None = None
    ) -> "ObservationManager":
        """Look at every frame; progress(results, total, what) may show how far the scan is. Returns self."""
        began = time.perf_counter()
        self._clear()
        found = find_fits(self.base_path, self.exclude)
        self.rejected += found.unreadable
        results, opened = self._images(found, progress)
        notes: Counter[str] = Counter()
        for file, image in zip(found.files, results, strict=True):
            self._sort_in(file, image, notes)
        self.rejected.sort(key=lambda rejection: rejection["path"])
        self._say(found, opened, notes, time.perf_counter() - began)
        if self.select:
            self._choose()
        self.images = {entry["original_path"]: self.images[entry["original_path"]] for entry in self.entries}
        self._loaded = True
        return self

    def _images(self, found: FoundFrames, progress) -> tuple[list[FitsImage | UnusableFits], int]:
        """Image or error of each file, from the cache, an index or a scan, and the number of files opened."""
        cache = ScanCache(self.base_path, self._cache_folder) if self._cache_folder else None
        results = [cache.get(file) if cache else None for file in found.files]
        missing = [number for number, result in enumerate(results) if result is None]
        if missing:
            index = FrameIndex([*found.indexes, *indexes_above(self.base_path)])
            for number in missing:
                results[number] = index.get(found.files[number])
        missing = [number for number in missing if results[number] is None]
        if missing:
            paths = [found.files[number].path for number in missing]
            for number, result in zip(missing, scan_headers(paths, self.jobs, progress), strict=True):
                results[number] = result
            if cache:
                try:
                    cache.save(zip(found.files, results, strict=True))
                except CalibrationError as error:
                    logger.info("headers are not remembered: %s", error)
        return results, len(missing)

    def _sort_in(self, file: FoundFile, image: FitsImage | UnusableFits, notes: Counter[str]) -> None:
        """Make an entry, a rejection or a skipped product of one file."""
        if isinstance(image, UnusableFits):
            if image.prodtype is not None:
                self.skipped_products += 1
            else:
                self._reject(file, str(image).removeprefix(f"{file.path}: "))
            return
        base_name = os.path.basename(self.base_path)
        # The base folder's own name tells the kind where it says nothing else: DIR = .../Flats.
        below = f"{base_name}/{file.relpath}" if is_kind_alone(base_name) else file.relpath
        facts = describe(image.cards, below)
        if facts.pop("prodtype") is not None:
            self.skipped_products += 1
            return
        problems = facts.pop("problems")
        if facts["caltype"] is None and facts["exposure"] is not None:
            # A bias frame is the only frame with no exposure at all; a short one may be of any kind.
            facts["caltype"] = "bias" if facts["exposure"] == 0 else "light"
            facts["kind_source"] = "exposure"
            notes[f"without a kind, taken for {facts['caltype']} by the exposure"] += 1
        if facts["caltype"] == "bias" and facts["exposure"] is None:
            facts["exposure"] = 0.0
        reasons = _reasons(facts, problems)
        if reasons:
            self._reject(file, "; ".join(reasons))
            return
        if facts["filter"] == NO_FILTER:
            notes[f"without FILTER, taken as {NO_FILTER}"] += 1
        self.entries.append(self._entry(file, image, facts))
        self.images[file.path] = image

    def _reject(self, file: FoundFile, reason: str) -> None:
        self.rejected.append({"path": file.path, "reason": reason})

    def _entry(self, file: FoundFile, image: FitsImage, facts: dict[str, Any]) -> Entry:
        light = facts["caltype"] == "light"
        known = {
            **facts,
            "original_path": file.path,
            "original_name": os.path.basename(file.path),
            "identifier": file.relpath,
            "category": FIELDS if light else CALIBRATION,
            "field_name": field_of(file.relpath) or os.path.basename(self.base_path) if light else None,
            "subcat": None if light else SUBCATS[facts["caltype"]],
            "mode": mode_of(file.relpath, facts["filter"], facts["exposure"]) if light else None,
            "exposure_time": facts["exposure"],
            "shape": image.shape,
        }
        return {column: known[column] for column in COLUMNS}

    def _say(self, found: FoundFrames, opened: int, notes: Counter[str], seconds: float) -> None:
        kinds = Counter(entry["caltype"] for entry in self.entries)
        counts = ", ".join(
            f"{kinds[kind]} {kind}" for kind in ("bias", "dark", "flat", "light") if kinds[kind]
        )
        logger.info(
            "frames: %s of %d FITS files (%d opened) in %.1f s, %s",
            counts or "none",
            len(found.files),
            opened,
            seconds,
            self.base_path,
        )
        if self.skipped_products:
            logger.info("products (PRODTYPE), which are no frames, left out: %d", self.skipped_products)
        if found.duplicates:
            logger.info("links to files met already, left out: %d", found.duplicates)
        for note, count in notes.items():
            logger.info("frames %s: %d", note, count)
        if self.rejected:
            first = self.rejected[0]
            logger.warning(
                "frames that cannot be used: %d, the first: %s: %s",
                *(len(self.rejected), first["path"], first["reason"]),
            )

    def _choose(self) -> None:
        for key, wanted in self.select.items():
            chosen = [entry for entry in self.entries if any(_same(entry[key], text) for text in wanted)]
            if not chosen:
                present = (
                    ", ".join(sorted({show_value(entry[key]) for entry in self.entries})) or "none at all"
                )
                raise InputError(
                    f"{self.base_path}: no frame with {key}={' or '.join(wanted)}, there is {present}"
                )
            if key == "filter" and any(entry["caltype"] not in ("bias", "dark") for entry in chosen):
                # Biases and darks serve every filter.
                kept = {entry["original_path"] for entry in chosen}
                chosen = [
                    e for e in self.entries if e["original_path"] in kept or e["caltype"] in ("bias", "dark")
                ]
            self.deselected += len(self.entries) - len(chosen)
            self.entries = chosen
        logger.info("--select leaves %d frames and %d out", len(self.entries), self.deselected)

    @property
    def table(self) -> "pandas.DataFrame":
        """The entries as a pandas DataFrame, one row a frame; a number that is not told is NaN."""
        import pandas

        self._need_load()
        table = pandas.DataFrame(self.entries, columns=list(COLUMNS))
        return table.astype(dict.fromkeys(NUMBERS, float))  # None is NaN there

    def _need_load(self) -> None:
        if not self._loaded:
            raise RuntimeError("load_and_organize() has not been called")

    def filter_files(
        self,
        category: str | None = None,
        field_name: str | None = None,
        subcat: str | None = None,
        mode: str | None = None,
        temp_min: float | None = None,
        temp_max: float | None = None,
        exp_min: float | None = None,
        exp_max: float | None = None,
        ext_filter: str | Sequence[str] | None = None,
    ) -> list[Entry]:
        """Entries that fit everything asked for; limits [degC, s] belong to the range, None asks for nothing.

        category : CALIBRATION or FIELDS.   subcat : bias, darks or flats.   field_name : folder of light
        frames.
        mode : vis or uv (light frames).   ext_filter : one extension or several, such as ".fits" or
        "fits.gz". Raises OptionError for a category, subcat or mode that does not exist.
        """
        self._need_load()
        category = _known("category", category, (CALIBRATION, FIELDS))
        if subcat is not None and isinstance(subcat, str):
            subcat = {"biases": "bias", "dark": "darks", "flat": "flats"}.get(subcat.lower(), subcat)
        wanted = {
            "category": category,
            "subcat": _known("subcat", subcat, tuple(SUBCATS.values())),
            "mode": _known("mode", mode, MODES),
            "field_name": field_name,
        }
        wanted = {key: value for key, value in wanted.items() if value is not None}
        extensions = (ext_filter,) if isinstance(ext_filter, str) else ext_filter
        if extensions is not None:
            extensions = tuple("." + extension.lower().lstrip(".") for extension in extensions)
        limits = (("temperature", temp_min, temp_max), ("exposure", exp_min, exp_max))
        return [
            entry
            for entry in self.entries
            if all(entry[key] == value for key, value in wanted.items())
            and all(low is None or entry[key] >= low for key, low, _ in limits)
            and all(high is None or entry[key] <= high for key, _, high in limits)
            and (extensions is None or entry["original_name"].lower().endswith(extensions))
        ]

    def get_file_list(
        self,
        category: str | None = None,
        field_name: str | None = None,
        mode: str | None = None,
        subcat: str | None = None,
    ) -> list[Entry]:
        """Entries of one category, field, mode or subcat, as filter_files gives them."""
        return self.filter_files(category=category, field_name=field_name, mode=mode, subcat=subcat)


def _inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def _known(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    found = next((one for one in allowed if isinstance(value, str) and one.lower() == value.lower()), None)
    if found is None:
        raise OptionError(f"{name} {value!r}, expected one of {', '.join(allowed)}")
    return found


def _reasons(facts: dict[str, Any], problems: dict[str, str]) -> list[str]:
    """Why a frame cannot be used; none where it can."""
    reasons = []
    if facts["badsize"]:
        reasons.append("BADSIZE: its raw file was not of the expected size")
    if facts.pop("foreign_master"):
        reasons.append(f"{facts['kind_source']} calls it a master of other software, not a frame")
    for field in ("temperature", "exposure"):
        if facts[field] is None:
            reasons.append(f"no {field}" + (f" ({problems[field]})" if field in problems else ""))
    if facts["caltype"] is None:
        reasons.append("no kind in header, file name or folder")
    return reasons
