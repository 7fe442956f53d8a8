"""The tools of the benchmarks: tables, measured processes, frames. Nothing here is timed."""

import sys

import numpy as np
import pytest
from astropy.io import fits

from benchmarks import flat_sections, frames, peers, readme
from benchmarks.run import SECTIONS, main
from benchmarks.sections import RULES, Plan
from benchmarks.table import Section, cell, document, megabytes
from benchmarks.timing import alternate, answer, median_run, run_process, worker


def test_table_is_markdown():
    section = Section("Speed", ("what", "seconds", "ratio"), [["ours", 0.3041, 1.0], ["theirs", 12.34, None]])
    assert section.markdown() == (
        "### Speed\n"
        "\n"
        "| what   | seconds | ratio |\n"
        "| ------ | ------: | ----: |\n"
        "| ours   |    0.30 |  1.00 |\n"
        "| theirs |    12.3 |       |\n"
    )


def test_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="Speed: got 1 cells, expected 2"):
        Section("Speed", ("what", "seconds"), [["ours"]]).markdown()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (3, "3"),
        ("a", "a"),
        (0.012345, "0.0123"),
        (2.5, "2.50"),
        (45.678, "45.7"),
        (1234.5, "1234"),
    ],
)
def test_cells(value, text):
    assert cell(value) == text


def test_document_names_machine_and_what_failed():
    text = document([Section("Speed", ("what",), [["ours"]])], 12.3, ["engine"])
    assert "- Machine: " in text
    assert "numpy " in text
    assert "Could not be measured: engine." in text
    assert text.index("Measured in 12 s") < text.index("### Speed")


def test_readme_shows_what_was_measured_between_its_marks(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{readme.FIRST}\nold\n{readme.LAST}\n\n## Next\n", encoding="utf-8")
    found = {name: Section(name.title(), ("what",), [["ours"]]) for name in ("combine", "full", "line")}
    for _ in range(2):  # a second time changes nothing
        readme.show(found, ["Date: today", "Machine: fast"], tmp_path / "benchmarks" / "today.md", page)
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# Title\n\n{readme.FIRST}\n\n- Date: today\n- Machine: fast\n")
        assert text.endswith(f"\n{readme.LAST}\n\n## Next\n")
        assert text.count("### Combine") == text.count("### Full") == 1
        assert "old" not in text
        assert "### Line" not in text
        assert "(benchmarks/today.md)" in text


def test_readme_without_marks_is_left_as_it_is(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n{readme.FIRST}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"got no lines .* expected both"):
        readme.show({}, [], tmp_path / "today.md", page)
    assert page.read_text(encoding="utf-8") == f"# Title\n{readme.FIRST}\n"


def test_the_readme_has_its_marks_once():
    text = readme.README.read_text(encoding="utf-8")
    assert text.count(readme.FIRST) == text.count(readme.LAST) == 1
    assert text.index(readme.FIRST) < text.index(readme.LAST)
    assert set(readme.SHOWN) <= set(SECTIONS)


def test_process_is_measured():
    one = run_process([sys.executable, "-c", "x = bytearray(50_000_000); print('done')"])
    other = run_process([sys.executable, "-c", "print('done')"])
    assert one.output == "done\n"
    # The array, whatever Python itself takes.
    assert 40_000_000 < one.peak - other.peak < 60_000_000
    assert median_run([one, other]).peak == one.peak
    assert megabytes(2_600_000) == 3


def test_failed_process_is_no_measurement():
    with pytest.raises(RuntimeError, match=r"status 3\nwhy"):
        run_process([sys.executable, "-c", "print('why'); raise SystemExit(3)"])


def test_commands_run_in_turn():
    order = []
    commands = {name: [sys.executable, "-c", "pass"] for name in "ab"}
    assert set(alternate(commands, 1, order.append)) == {"a", "b"}
    assert order == ["a", "b", "a", "b"]


def test_frames_repeat_under_their_own_names(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "DISTINCT", 2)
    frames.bias(tmp_path, "16", "-5=3")
    paths = sorted((tmp_path / "T-5").glob("*.fits"))
    assert len(paths) == 3
    first, second, third = (fits.getdata(path) for path in paths)
    assert (first != second).any()
    assert (first == third).all()
    assert fits.getheader(paths[2])["CCD-TEMP"] == -5
    names, size = [str(path) for path in paths], sum(path.stat().st_size for path in paths)
    target = bytearray(size)
    assert peers.read_all(names, 2) == peers.read_all(names, 2, target) == size
    assert bytes(target) == b"".join(path.read_bytes() for path in paths)


def test_worker_answers_and_frames_are_made_once(tmp_path):
    plan = Plan(tmp_path, side=16)
    folder = plan.bias_frames(groups={0: 2})
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.fits")}
    assert len(made) == 2
    assert plan.bias_frames(groups={0: 2}) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.fits")} == made
    found = answer(run_process(worker("in_process", "line", 16, 4, 1)))
    assert found["seconds"] > 0


def test_simulated_darks_are_taken_as_frames(tmp_path):
    frames.dark(tmp_path, "16", "2", "-5,5", "10")
    assert len(list((tmp_path / "dark").glob("*.fits"))) == len(list((tmp_path / "bias").glob("*.fits"))) == 4
    header = fits.getheader(next((tmp_path / "dark").glob("*.fits")))
    assert header["IMAGETYP"] == "Dark Frame"
    assert header["EXPTIME"] == 10


def test_ccdproc_combines_one_group_of_the_flats(tmp_path):
    at = flat_sections.TEMPERATURES, flat_sections.DARK_EXPOSURE
    frames.dark(tmp_path / "all", "32", "3", *at)
    frames.flat(tmp_path / "all" / "flat", "32", "3", flat_sections.FILTERS, *at)
    part = flat_sections._one_group(tmp_path / "all", tmp_path / "part")
    headers = [fits.getheader(path) for path in sorted(part.rglob("*.fits"))]
    assert len(headers) == 9
    assert {head["CCD-TEMP"] for head in headers} == {-10.0}
    assert {head.get("FILTER") for head in headers} == {None, "R"}
    run_process(worker("flat_sections", "ccdproc", part, tmp_path / "master.fits"))
    # Divided by its median: that of three noisy frames (0.7 % a sample) lies within the scatter of the response.
    assert abs(float(np.median(fits.getdata(tmp_path / "master.fits"))) - 1.0) < 0.01


def test_fits_of_the_dark_law_run_on_a_few_pixels():
    assert answer(run_process(worker("dark_fit", "ours", 16, 1)))["cpu"] > 0
    assert answer(run_process(worker("dark_fit", "scipy", 16, 20)))["failed"] < 5


def test_every_way_has_its_rule():
    assert set(peers.WAYS) <= set(RULES)


def test_unknown_section_is_refused(capsys):
    assert main(["combine", "speed"]) == 2
    assert f"unknown section speed, expected {', '.join(SECTIONS)}" in capsys.readouterr().err
