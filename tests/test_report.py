"""The report: complete, self-contained, escaped."""

import base64
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from utils.application import report
from utils.application.figure_style import png_bytes
from utils.application.plots import map_figure
from utils.application.run_record import RunRecord

PNG = png_bytes(map_figure(np.eye(12), label="level [ADU]", title="A map"))


def context(**changes):
    base = {
        "title": "Bias calibration",
        "command": "run_pipeline.py --basepath '<DIR> & more'",
        "version": "0.1.0",
        "date": "2026-01-02 03:04 UTC",
        "status": 0,
        "pipeline": "bias_pipeline",
        "mode": "full",
        "seconds": 12.3,
        "versions": {"numpy": "2.0"},
        "options": {"clip_sigma": 4.0, "select": ["gain=100"]},
        "inputs": "12 frames",
        "warnings": ["group at 5.0 °C has <4> frames"],
        "values": [
            {"section": "", "name": "level", "value": 1003.2143, "error": 0.0321, "unit": "ADU"},
            {"section": "model", "name": "slope", "value": -0.28, "error": None, "unit": "ADU/K"},
        ],
        "sections": [("Masters", "How frames were combined."), ("Nothing", "")],
        "figures": [{"section": "Model", "caption": "a <b>map</b>", "png": PNG}],
        "tables": [
            {"section": "Masters", "title": "Groups", "columns": ["T [°C]", "frames"], "rows": [[-5.0, 3]]}
        ],
        "products": [{"path": "bias_model/a map#1.fits", "prodtype": "BIAS_MODEL", "what": "level"}],
        "steps": [{"name": "load", "seconds": 0.25, "summary": "12 frames"}],
        "rejected": [{"path": "x/<y>.fits", "reason": "BADSIZE"}],
    }
    return {**base, **changes}


class Page(HTMLParser):
    """Addresses, text and balance of the tags of a page."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.words, self.ids, self.open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_page_asks_nothing_of_the_network():
    html = report.render(context())
    page = Page(html)
    assert page.addresses
    for address in page.addresses:
        assert not address.startswith(("http:", "https:", "//", "file:"))
    assert "url(" not in html
    assert "@import" not in html
    assert "script" not in page.tags
    assert "link" not in page.tags


def test_pictures_are_inside(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(PNG)
    both = [{"section": "Model", "caption": "c", "png": png} for png in (PNG, path)]
    pictures = [a for a in Page(report.render(context(figures=both))).addresses if a.startswith("data:")]
    assert len(pictures) == 2
    for picture in pictures:
        kind, content = picture.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content, validate=True) == PNG


def test_what_comes_from_outside_is_escaped():
    html = report.render(context())
    assert "<b>map" not in html
    page = Page(html)
    assert "'<DIR> & more'" in page.text
    assert "has <4> frames" in page.text
    assert "x/<y>.fits" in page.text
    assert "bias_model/a%20map%231.fits" in page.addresses


def test_every_table_is_there():
    page = Page(report.render(context()))
    # Key numbers, values and groups of sections, products, frames left out, steps, options, versions.
    assert page.tags.count("table") == 8
    for words in (
        "level 1003.214 ± 0.032 ADU",
        "slope −0.28 ADU/K",
        "T [°C] frames −5 3",
        "BIAS_MODEL level",
        "BADSIZE",
        "load 0.25 s 12 frames",
        "clip_sigma 4",
        "numpy 2.0",
        "How frames were combined.",
        "Complete: everything asked for was made.",
    ):
        assert words in page.text, words
    assert page.tags.count("h2") == 6  # "model" and "Model" are one section
    assert "Nothing" not in page.text  # a section with nothing to tell


def test_links_inside_the_page_have_their_target():
    page = Page(report.render(context()))
    inside = [address[1:] for address in page.addresses if address.startswith("#")]
    assert inside
    assert set(inside) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_missing_products_make_the_banner():
    page = Page(report.render(context(status=1, missing=[{"what": "model", "reason": "one temperature"}])))
    assert "Incomplete (status 1)" in page.text
    assert "model: one temperature" in page.text
    assert "Complete: everything" not in page.text


def test_smallest_page():
    smallest = {key: context()[key] for key in report.REQUIRED}
    page = Page(report.render(smallest))
    assert page.tags.count("table") == 0
    assert "warning" not in page.text


def test_unknown_and_absent_keys_are_refused():
    with pytest.raises(ValueError, match=r"unknown keys \['figure'\], absent keys \['title'\]"):
        report.render({**{key: value for key, value in context().items() if key != "title"}, "figure": []})


def test_long_tables_end_with_a_count():
    rejected = [{"path": f"f{n}.fits", "reason": "BADSIZE"} for n in range(report.MOST_ROWS + 7)]
    page = Page(report.render(context(rejected=rejected)))
    assert page.text.count("BADSIZE") == report.MOST_ROWS
    assert "7 more in rejected_frames.csv ." in page.text
    assert "207 frames were not used" in page.text


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (1003.2143, 0.0321, "1003.214 ± 0.032"),
        (-0.2801234, 0.00042, "−0.28012 ± 0.00042"),
        (12345.6, 123.0, "12350 ± 120"),
        (1.0, 0.0996, "1.00 ± 0.10"),
        (3.0e-12, 2.1e-13, "(3.00 ± 0.21) × 10^−12"),
        (np.float32(1.5), np.float32(0.25), "1.50 ± 0.25"),
        (1.5, None, "1.5"),
        (1.5, float("nan"), "1.5"),
        (1.5, 0.0, "1.5"),
        (float("nan"), 0.1, "not known"),
        (None, None, "not known"),
        (12, None, "12"),
        (True, None, "yes"),
        ("sigclip", None, "sigclip"),
    ],
)
def test_measure(value, error, expected):
    assert report.measure(value, error) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.244, "0.24 s"), (12.3, "12 s"), (185.0, "3 min 05 s"), (59.7, "1 min 00 s")]
)
def test_duration(seconds, expected):
    assert report.duration(seconds) == expected


def test_context_of_a_run(tmp_path):
    record = RunRecord(tmp_path, "bias", "full", {"clip_sigma": 4.0}, ["--mode", "full", "--basepath", "a b"])
    with record:
        with record.step("make masters") as step:
            for name, what in (("one", {}), ("two", {"what": "the second"})):
                path = record.claim(tmp_path / f"{name}.fits")
                path.write_bytes(b"x")
                record.add_product(path, "MASTER_BIAS", **what)
            picture = record.claim(tmp_path / "figures" / "map.png")
            picture.parent.mkdir()
            picture.write_bytes(PNG)
            record.add_figure(picture, "the map", section="masters")
            record.value("level", 1003.2143, "adu", 0.0321, section="masters")
            record.missing("model", "one temperature")
            record.reject("frame.fits", "BADSIZE")
            step.summary = "2 masters"
        with record.step("report"):
            made = report.context_of(
                record, title="Bias", program="run_pipeline.py", kinds={"MASTER_BIAS": "mean bias"}
            )
            page = Page(report.render(made))
    for words in (
        "run_pipeline.py --mode full --basepath 'a b'",
        "Incomplete (status 1): something asked for is missing. model: one temperature",
        "Masters quantity value unit level 1003.214 ± 0.032 adu the map",
        "one.fits MASTER_BIAS mean bias two.fits MASTER_BIAS the second",
        "frame.fits BADSIZE",
        "2 masters Options clip_sigma 4 Versions",
    ):
        assert words in page.text, words


def test_file_is_written_whole(tmp_path):
    path = report.write_report(tmp_path / "out" / "report.html", context())
    assert path.read_text(encoding="utf-8") == report.render(context())
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_page_opens_in_a_browser(tmp_path):
    path = report.write_report(tmp_path / "report.html", context())
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
    ]
    probe = path.with_name("probe.html")
    # The page's own word on its pictures and on whether a laptop window must scroll sideways.
    script = (
        "<script>onload = () => { document.title = [...document.images].every(i => i.naturalWidth > 0)"
        " + ' ' + (document.documentElement.scrollWidth <= innerWidth); }</script></body>"
    )
    probe.write_text(path.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    shown = subprocess.run(
        [*command, "--window-size=1280,800", "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<title>true true</title>" in shown.stdout


def test_template_is_compiled_once_and_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    from utils.application import report

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report._template.cache_clear()
    report._template()
    (kept,) = (tmp_path / "cache" / "calibration-pipelines" / "templates").iterdir()
    written = kept.stat().st_mtime_ns
    report._template.cache_clear()
    report._template()
    assert kept.stat().st_mtime_ns == written
    kept.parent.chmod(0o777)  # anybody may have written there
    assert report._compiled_templates() is None
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert report._compiled_templates() is None
    report._template.cache_clear()
    assert report._template() is not None
    report._template.cache_clear()
