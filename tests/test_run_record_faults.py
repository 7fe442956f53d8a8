"""Output folders with foreign, damaged or linked files, without permission or room: refused, and nothing is lost."""

import json
import os
from pathlib import Path

import pytest

from tests.run_records import files, make, new_record, run, run_file
from utils.errors import OutputError
from utils.fits_io.atomic import RefusedOutputError

pytestmark = pytest.mark.usefixtures("logging_as_before")


def test_foreign_files_are_not_overwritten(out):
    out.mkdir()
    (out / "a.fits").write_text("mine")
    with pytest.raises(
        RefusedOutputError, match=r"a\.fits: stands there but no run of these pipelines"
    ) as caught:
        run(out, ["a.fits"])
    assert caught.value.status == 2
    assert (out / "a.fits").read_text() == "mine"
    assert files(out) == ["a.fits"]
    run(out, ["a.fits"], overwrite=True)
    assert (out / "a.fits").read_text() == "full a.fits"
    run(out, ["a.fits"])


@pytest.mark.parametrize("name", ["summary.csv", "rejected_frames.csv", "report.html"])
def test_a_foreign_summary_is_seen_at_the_start(out, name):
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(RefusedOutputError, match="stands there"):
        new_record(out)
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{broken", r"run\.json: got .*, expected the JSON record"),
        ("[1, 2]", r"run\.json: got format list, expected a record of these pipelines, 1"),
        ('{"runs": []}', "got format none"),
        ('{"format": 2, "products": {}, "runs": []}', "got format 2"),
        ('{"format": 1, "products": [], "runs": []}', "damaged, expected a list of runs"),
        ('{"format": 1, "products": {"a": {}}, "runs": []}', "product 'a' is damaged"),
    ],
)
def test_a_damaged_or_foreign_run_file_is_refused_and_kept(out, content, words):
    out.mkdir()
    (out / "run.json").write_text(content)
    with pytest.raises(RefusedOutputError, match=words) as caught:
        new_record(out)
    assert caught.value.status == 2
    assert (out / "run.json").read_text() == content
    run(out, ["a.fits"], overwrite=True)
    assert list(run_file(out)["products"]) == ["a.fits", "rejected_frames.csv", "summary.csv"]


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../x", "..", ""])
def test_paths_that_lead_out_of_the_folder_are_refused(out, tmp_path, name):
    run(out, ["a.fits"])
    (tmp_path / "x").write_text("mine")
    content = run_file(out)
    content["products"][name] = content["products"].pop("a.fits")
    (out / "run.json").write_text(json.dumps(content))
    with pytest.raises(RefusedOutputError, match="expected a path inside the output folder"):
        run(out, ["b.fits"])
    assert (tmp_path / "x").read_text() == "mine"
    assert not (out / "b.fits").exists()


def test_a_link_that_leads_out_is_not_followed(out, tmp_path):
    run(out, ["deep/a.fits", "deep/b.fits"])
    (tmp_path / "elsewhere").mkdir()
    (out / "deep").rename(tmp_path / "elsewhere" / "deep")
    (out / "deep").symlink_to(tmp_path / "elsewhere" / "deep")
    record = run(out, ["c.fits"])
    assert (tmp_path / "elsewhere" / "deep" / "a.fits").exists()
    assert "its folder is a link" in record.warnings[0]


def test_products_outside_the_folder_are_a_mistake_of_the_caller(out, tmp_path):
    with new_record(out) as record:
        with pytest.raises(ValueError, match="is not in the output folder"):
            record.claim(tmp_path / "x")
        with pytest.raises(ValueError, match="is not a name in the output folder"):
            record.claim(out / ".." / "x")


def test_relative_and_absolute_spellings_of_the_folder_agree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_record(Path("out")) as record:
        make(record, "a.fits")
        record.claim(tmp_path / "out" / "a.fits")
    assert "a.fits" in run_file(tmp_path / "out")["products"]


# Places that cannot be written ------------------------------------------------------------------------------


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RefusedOutputError, match="file is a file, expected a folder"):
        new_record(tmp_path / "file" / "out")


def test_a_folder_that_cannot_be_written(out, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # Root may write everywhere.
    with pytest.raises(RefusedOutputError, match="cannot be written, expected a writable output folder"):
        new_record(out)
    assert not out.exists()


def test_full_disk_at_the_end_leaves_the_earlier_record(out, monkeypatch):
    run(out, ["a.fits"])
    before = (out / "run.json").read_bytes()
    with pytest.raises(OutputError, match="disk full") as caught:
        fill_the_disk(out, monkeypatch)
    monkeypatch.undo()
    assert caught.value.status == 1
    assert (out / "run.json").read_bytes() == before
    run(out, ["a.fits", "b.fits"])  # b.fits, made by the run before, is known from its journal.


def fill_the_disk(out, monkeypatch):
    with new_record(out) as record:
        make(record, "b.fits")

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        record.finish()
