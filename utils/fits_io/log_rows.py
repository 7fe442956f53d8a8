"""Which row of the log belongs to which raw file."""

from collections import Counter

from utils.fits_io.capture_log import as_number, shown
from utils.fits_io.frame_cards import measured_cards
from utils.fits_io.raw_tree import parse_filename_metadata, parse_frame_number


def match_rows(raws, log, header):
    """Give each raw file its log row: by frame number, or in order where names or log have no numbers.

    raws : paths.   log : CaptureLog or None.   header : HeaderPlan of the attempt.
    Returns (matches, notes, details): (row or None, texts about that frame) for each file; texts about all of
    them; texts about rows that cannot be used.
    """
    if log is None:
        return [(None, ("no log",))] * len(raws), [], []
    numbers = [parse_frame_number(raw) for raw in raws]
    column = header.index_of("FRAMENUM")
    if column is None or all(number is None for number in numbers):
        why = "the log has no frame numbers" if column is None else "file names have no frame numbers"
        count = "" if len(log.rows) == len(raws) else f" ({len(raws)} files, {len(log.rows)} rows)"
        rows = [*log.rows, *[None] * len(raws)][: len(raws)]
        matches = [(row, () if row is not None else ("no log row",)) for row in rows]
        return matches, [f"{why}: log rows are taken in order{count}"], []
    by_number, told, details = _rows_by_number(log, column)
    offset, notes = _offset(numbers, told), []
    if offset:
        first = min(numbers)
        text = f"the log counts frames from {first + offset}, file names from {first}"
        notes.append(f"{text}: log rows are taken in order")
    files = Counter(numbers)
    matches = []
    for raw, number in zip(raws, numbers, strict=True):
        rows, texts = by_number.get(number if number is None else number + offset, []), []
        if not rows:
            texts.append("no log row" if number is not None else "no frame number in the name, no log row")
        elif len(rows) > 1:
            rows, text = _choose(rows, raw, header)
            texts.append(text)
        if number is not None and files[number] > 1:
            texts.append(f"frame number {number} comes {files[number]} times among the files")
        matches.append((rows[-1] if rows else None, tuple(texts)))
    return matches, notes, details


def _offset(numbers, told):
    """What all log numbers have more than those of the files, 0 where that is not one constant.

    numbers : of the files, None where a name has none.   told : of the rows, None where a row has none.
    """
    if None in numbers or len(numbers) != len(told):
        return 0
    if None not in told:
        numbers, told = sorted(numbers), sorted(told)
    offsets = {row - number for number, row in zip(numbers, told, strict=True) if row is not None}
    return offsets.pop() if len(offsets) == 1 else 0


def _rows_by_number(log, column):
    """Frame number -> its different rows; the number of each (or None); a text for each row without one."""
    by_number, told, details = {}, [], []
    for row in log.rows:
        if row is None:
            told.append(None)
            continue
        number = as_number(row[column], log.decimal_comma)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if not isinstance(number, int):
            told.append(None)
            details.append(f"row without a frame number: {shown(', '.join(row))}")
            continue
        rows = by_number.setdefault(number, [])
        if row not in rows:
            rows.append(row)
            told.append(number)
    return by_number, told, details


def _choose(rows, raw, header):
    """Of several rows with one frame number those with the exposure of the file name, if any; and a note."""
    exposure = parse_filename_metadata(raw)[0]
    fitting = []
    if exposure is not None:
        for row in rows:
            told = {keyword: value for keyword, value, _ in measured_cards(header, row)[0]}.get("EXPTIME")
            if isinstance(told, float) and abs(told - exposure) <= 1e-3 * exposure:
                fitting.append(row)
    if len(fitting) == 1:
        return fitting, f"{len(rows)} log rows for this number, that with the exposure of the name is taken"
    return fitting or rows, f"{len(rows)} log rows for this number, the last is taken"
