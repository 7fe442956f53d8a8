"""Whatever stands in their files, readers give a result or one line: no traceback, no hang, no memory without bound.

FUZZ_CASES sets the number of cases of each test; `make fuzz` runs 10,000.
"""

import json
import os
import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flat_pipeline.json_inputs import read_dark_files
from tests.fuzz_words import KEYS, NAMES, VALUES
from utils import raw_to_fits
from utils.application.product_list import RUN_FILE, load_run_file
from utils.domain.bias_model import model_summary
from utils.domain.campaign_plan import expand_plan
from utils.domain.detector import Detector
from utils.domain.lens_profiles import read_empirical, read_lensfun, read_radial
from utils.errors import CalibrationError
from utils.fits_io.capture_log import read_config, read_log
from utils.fits_io.fits_cards import card
from utils.fits_io.frame_stack import FrameStack
from utils.fits_io.header_scan import scan_header
from utils.fits_io.keywords import describe
from utils.fits_io.product_reader import read_product
from utils.simulate_campaign import _camera, _read_plan

CASES = int(os.environ.get("FUZZ_CASES", "60"))
MOST_MEMORY = 64 << 20
fuzz = settings(
    max_examples=CASES,
    deadline=10_000,
    derandomize="FUZZ_CASES" not in os.environ,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)


@pytest.fixture
def place(tmp_path):
    """One folder for all cases of a test."""
    return tmp_path


def one_line(function, *words):
    """Call a reader; what it raises must be an error of ours, of one line."""
    told = ""
    try:
        return function(*words)
    except CalibrationError as error:
        told = str(error)
    assert told
    assert "\n" not in told
    assert len(told) < 4000
    return None


# --- text: config, log --------------------------------------------------------------------------------

words = st.sampled_from(
    [
        *(
            "WIDTH",
            "HEIGHT",
            "BIT_DEPTH",
            "BYTE_ORDER",
            "PIXEL_FORMAT",
            "FrameNum",
            "TimeStamp",
            "ExpTime",
            "Temperature",
        ),
        *(
            "ExpGain",
            "RealExpTime",
            "InitialTemp",
            "Mono12Packed",
            "Mono16",
            "big",
            "little",
            "10",
            "6",
            "16",
            "8",
            "nan",
        ),
        *(
            "inf",
            "-1.#IND",
            "1e400",
            "-0",
            "0x10",
            "9" * 40,
            "1,5",
            "=",
            ":",
            ",",
            ";",
            "\t",
            "|",
            " ",
            "#",
            '"',
            "'",
        ),
        *(
            "\n",
            "\r",
            "\x00",
            "\ufeff",
            "é",
            "雪",
            "[x]",
            "T",
            "true",
            "1700000000.25",
            "99999999999999999999",
            "-273.15",
            "%s",
        ),
    ]
)
texts = st.lists(st.one_of(words, st.text(max_size=8)), max_size=60).map(
    lambda some: "".join(some).encode("utf-8", "replace")
)
contents = st.one_of(texts, st.binary(max_size=400), texts.map(lambda data: data.decode().encode("utf-16")))


@fuzz
@given(contents)
def test_config(place, data):
    path = place / "configFile.txt"
    path.write_bytes(data)
    config = one_line(read_config, path)
    assert config is None or all(isinstance(key, str) for key in config)


@fuzz
@given(contents)
def test_log(place, data):
    path = place / "temperatureLog.csv"
    path.write_bytes(data)
    log = one_line(read_log, path)
    assert log is None or all(row is None or len(row) == len(log.columns) for row in log.rows)


# --- the converter -------------------------------------------------------------------------------------

small = st.sampled_from(["1", "2", "3", "7", "0", "-4", "65536", "4e0", "99999", "wide", ""])
configs = st.one_of(
    st.builds(
        lambda w, h, b, f, more: f"WIDTH={w}\nHEIGHT: {h}\n{b}\n{f}\n".encode() + more,
        small,
        small,
        st.sampled_from(
            ["", "BIT_DEPTH=8", "BIT_DEPTH=16", "BIT_DEPTH=12", "BIT_DEPTH=99", "BYTE_ORDER=big"]
        ),
        st.sampled_from(
            ["", *(f"PIXEL_FORMAT={name}" for name in ("Mono12p", "Mono10p", "Mono12Packed", "X"))]
        ),
        texts,
    ),
    contents,
)
logs = st.one_of(
    st.lists(st.lists(words, max_size=12).map(",".join), max_size=6).map(
        lambda lines: "\n".join(["FrameNum,TimeStamp,ExpTime,Temperature,ExpGain", *lines]).encode(
            "utf-8", "replace"
        )
    ),
    contents,
)
names = st.one_of(
    st.sampled_from(
        ["f0", "f1", "exp_1.2e-05s_frame3", "exp1e999s_f1", "T-10_f2", "T99999_exp0.1s", "f" + "9" * 60]
    ),
    st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=20),
)


@fuzz
@given(st.lists(st.tuples(names, st.binary(max_size=130)), min_size=1, max_size=3), configs, logs)
def test_converter(place, raws, config, log):
    shutil.rmtree(place / "Bias", ignore_errors=True)
    attempt = place / "Bias" / "T0" / "attempt1"
    (attempt / "frames").mkdir(parents=True)
    for name, data in raws:
        (attempt / "frames" / f"{name}.raw").write_bytes(data)
    (attempt / "configFile.txt").write_bytes(config)
    (attempt / "temperatureLog.csv").write_bytes(log)
    status = raw_to_fits.main(
        [str(place / "Bias"), "x", "x", "--skip-dark", "--skip-flat", "--jobs", "1", "--quiet"]
    )
    assert status in (0, 1, 2)
    for path in (attempt / "fits").glob("*.fits"):
        image = scan_header(path)  # What was written can be read.
        describe(image.cards, path.name)


# --- FITS ------------------------------------------------------------------------------------------------

lines = st.one_of(
    st.builds(
        lambda key, value: f"{key:8s}= {value}"[:80].ljust(80).encode(),
        st.sampled_from(KEYS),
        st.sampled_from(VALUES),
    ),
    st.binary(min_size=80, max_size=80),
    st.just(b"END".ljust(80)),
)
_FIRST = ["SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2"]


@st.composite
def fits_bytes(draw):
    """A FITS file with some cards replaced, added or cut, and some bytes of it changed."""
    cards = [card(*one).encode() for one in zip(_FIRST, (True, 16, 2, 4, 3), strict=True)]
    for place, line in draw(st.lists(st.tuples(st.integers(0, 9), lines), max_size=6)):
        cards[place : place + draw(st.integers(0, 1))] = [line]
    head = b"".join(cards) + b"END".ljust(80)
    whole = head.ljust(-(-len(head) // 2880) * 2880) + bytes(2880)
    changed = bytearray(whole)
    for place, value in draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)
    ):
        changed[place] = value
    return bytes(changed[: draw(st.sampled_from([len(whole), len(whole), 2880, 2900, 100, 0]))])


def read_frame(path):
    """Header, facts and samples of a frame, as the pipelines read them."""
    image = scan_header(path)
    facts = describe(image.cards, "Bias/x.fits")
    if image.shape[0] * image.shape[1] < 10_000:
        with FrameStack([image]) as stack:
            stack.read_rows(0, 0, np.empty(image.shape, stack.stored_type(0)))
    return facts


@fuzz
@given(st.one_of(fits_bytes(), st.binary(max_size=6000), fits_bytes().map(lambda data: b"\x1f\x8b" + data)))
def test_header(place, data):
    path = place / "x.fits"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        one_line(read_frame, path)
        one_line(read_product, path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


# --- JSON -------------------------------------------------------------------------------------------------

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**30, -(10**400), 1e308, -1e-308, float("nan"), float("inf"), 0.5, -0.1]),
    st.floats(),
    st.sampled_from(
        ["detector", "pa", "polynomial", "gaussian", "median", "Canon", "lab", "sky", "dust", "VIS"]
    ),
    st.sampled_from(["", "é/..", "x" * 300]),
)
values = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), inner, max_size=6),
    ),
    max_leaves=20,
)
_SOUND = {
    "detector": {"format": "detector", "version": 1, "gain": {"value": 2.0}, "aduscale": 1, "camera": {}},
    "darks": [{"original_path": "x.fits", "temperature": 0, "exposure": 1}],
    "lens": {"camera": "x", "lens": "y", "focal_length": 50, "aperture": 2, "distance": 10},
    "pa": {"model": "pa", "k1": 0.1, "k2": 0.0, "k3": 0.0},
    "radial": {"k1": 0.1, "k2": 0.0, "k3": 0.0, "center": [2, 3]},
    "empirical": {"method": "polynomial", "degree": 2},
    "plan": {
        "sessions": [0, 2],
        "bias": [{"temperatures": [0], "frames": 2}],
        "darks": [{"temperatures": [0], "exposures": [1], "frames": 2, "session": 1}],
        "flats": [{"temperatures": [0], "exposures": [1], "frames": 2, "flux": 0.2}],
        "changes": [{"kind": "dust", "day": 1, "x": 0.3, "y": 0.6, "radius": 0.03, "depth": 0.05}],
    },
}


@st.composite
def json_bytes(draw, kind):
    """Sound options with some entries replaced by anything, or anything, or text that is no JSON."""

    def spoil(node):
        if draw(st.integers(0, 9)) == 0:
            return draw(values)
        if isinstance(node, dict):
            spoiled = {key: spoil(value) for key, value in node.items() if draw(st.integers(0, 19))}
            more = st.dictionaries(st.sampled_from(NAMES), values, max_size=1)
            return spoiled | (draw(more) if draw(st.booleans()) else {})
        return [spoil(value) for value in node] if isinstance(node, list) else node

    choice = draw(st.integers(0, 11))
    if choice == 0:
        return draw(contents)
    if choice == 1:
        return b"[" * draw(st.sampled_from([10, 5000]))
    content = draw(values) if choice == 2 else spoil(_SOUND[kind])
    data = json.dumps(content).encode()
    return data[: draw(st.integers(0, len(data)))] if choice == 3 else data


def expanded_plan(path):
    """Read a plan as the simulator does, and list its attempts where they are few."""
    plan = _read_plan(str(path))
    _camera(plan, SimpleNamespace(bits=None, size=None, seed=None, plan=path))
    sets = [group for name in ("bias", "darks", "flats") for group in plan[name]]
    if sum(group["frames"] for group in sets) < 500:
        expand_plan(plan, np.random.default_rng(1))


READERS = {
    "detector": Detector.load,
    "darks": read_dark_files,
    "lens": read_lensfun,
    "pa": read_lensfun,
    "radial": read_radial,
    "empirical": read_empirical,
    "plan": expanded_plan,
}


@pytest.mark.parametrize("kind", _SOUND)
def test_json(place, kind):
    path = place / f"{kind}.json"

    @fuzz
    @given(json_bytes(kind))
    def case(data):
        path.write_bytes(data)
        one_line(READERS[kind], path)

    case()


@fuzz
@given(st.one_of(contents, values.map(lambda value: json.dumps(value).encode()), st.just(b"[" * 5000)))
def test_records_of_earlier_runs(place, data):
    for name in (RUN_FILE, "bias_model.json"):
        (place / name).write_bytes(data)
    one_line(load_run_file, place)
    one_line(model_summary, place)
