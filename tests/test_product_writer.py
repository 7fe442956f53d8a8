"""Products written piece after piece by several workers: the same bytes, and whole files or none."""

import os
import time

import numpy as np
import pytest
from astropy.io import fits

from tests.test_products import INPUTS
from utils.errors import OutputError
from utils.fits_io import plane_writer
from utils.fits_io.products import write_product, write_products


def test_full_disk_leaves_the_earlier_product(tmp_path, monkeypatch):
    path = tmp_path / "x.fits"
    write_product(path, np.ones((4, 5)), prodtype="X", unit="adu")
    before = path.read_bytes()

    def full(descriptor, buffer, position):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plane_writer.os, "pwrite", full)
    with pytest.raises(OutputError, match=r"x\.fits: disk full") as caught:
        write_product(path, np.zeros((4, 5)), prodtype="X", unit="adu")
    assert caught.value.status == 1
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.fits"]


@pytest.mark.parametrize("failing", ["here", "elsewhere"])
def test_full_disk_met_by_any_worker_is_told(tmp_path, monkeypatch, failing):
    monkeypatch.setattr(plane_writer, "PIECE", 4)
    monkeypatch.setattr(plane_writer, "WORTH_A_WORKER", 1)
    parent = os.getpid()
    write = os.pwrite

    def full(descriptor, buffer, position):
        time.sleep(0.001)
        if (os.getpid() == parent) == (failing == "here"):
            raise OSError(28, "No space left on device")
        return write(descriptor, buffer, position)

    monkeypatch.setattr(plane_writer.os, "pwrite", full)
    with pytest.raises(OutputError, match=r"x\.fits: disk full"):
        write_product(tmp_path / "x.fits", np.zeros((40, 50)), prodtype="X", unit="adu", jobs=3)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (61, 97), (64, 45)])
def test_pieces_workers_and_computed_planes_change_no_byte(tmp_path, monkeypatch, shape):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    rng = np.random.default_rng(4)
    data = rng.normal(300, 2, shape)
    data[0, 0] = np.nan
    planes = {
        "data": data,
        "uncert": rng.uniform(0.1, 0.5, shape).astype(np.float32),
        "dq": rng.integers(0, 1024, shape).astype(np.int16),
        "flag": rng.integers(0, 256, shape).astype(np.uint8),
        "count": rng.integers(-(2**31), 2**31 - 1, shape).astype(np.int32),
    }

    def write(name, given, jobs):
        extra = [("FLAG", given["flag"], ""), ("COUNT", given["count"], "")]
        main = {key: given[key] for key in ("uncert", "dq")}
        path = tmp_path / name
        write_product(
            path, given["data"], **main, extra=extra, inputs=INPUTS, prodtype="X", unit="adu", jobs=jobs
        )
        return path.read_bytes()

    whole = write("whole.fits", planes, 1)
    calls = []

    def compute(part):
        calls.append(part)
        return {name: plane.reshape(-1)[part] for name, plane in planes.items()}

    monkeypatch.setattr(plane_writer, "PIECE", 1000)
    monkeypatch.setattr(plane_writer, "WORTH_A_WORKER", 1)
    computed = plane_writer.computed_planes(shape, {k: v.dtype for k, v in planes.items()}, compute)
    assert write("jobs.fits", planes, 3) == whole
    assert write("computed.fits", computed, 1) == whole
    assert len(calls) == -(-data.size // 1000)  # once for all planes
    assert write("both.fits", computed, 3) == whole
    with fits.open(tmp_path / "both.fits", checksum=True) as hdus:
        np.testing.assert_array_equal(hdus["COUNT"].data, planes["count"])


@pytest.mark.parametrize(("jobs", "together", "most"), [(1, 1, 64), (3, 1, 2), (3, 3, 64), (2, 3, 5)])
def test_files_written_at_once_are_those_written_one_by_one(tmp_path, monkeypatch, jobs, together, most):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    rng, shape = np.random.default_rng(4), (37, 41)
    planes = {f"p{n}": rng.normal(300, 2, shape).astype(np.float32) for n in range(6)}
    described = [
        {"uncert": planes[f"p{(n + 1) % 6}"], "inputs": INPUTS[: n % 3], "prodtype": "X", "unit": "adu"}
        for n in range(6)
    ]
    described[1] |= {"extra": [("MORE", planes["p5"], "")]}
    for n, one in enumerate(described):
        write_product(tmp_path / f"one_{n}.fits", planes[f"p{n}"], **one)
    monkeypatch.setattr(plane_writer, "PIECE", 400)
    monkeypatch.setattr(plane_writer, "WORTH_A_WORKER", 1)
    monkeypatch.setattr("utils.fits_io.products.MOST_OPEN", most)
    calls = []

    def compute(part):
        calls.append(part)
        return {name: plane.reshape(-1)[part] for name, plane in planes.items()}

    computed = plane_writer.computed_planes(shape, dict.fromkeys(planes, np.float32), compute)
    plan = [(tmp_path / f"all_{n}.fits", computed[f"p{n}"], one) for n, one in enumerate(described)]
    there = []
    write_products(plan, jobs, lambda n: there.append((n, plan[n][0].exists())), together)
    assert sorted(there) == [(n, True) for n in range(6)]
    for n in range(6):
        assert (tmp_path / f"all_{n}.fits").read_bytes() == (tmp_path / f"one_{n}.fits").read_bytes()
    if jobs == 1:
        assert len(calls) == 6 * 4
    assert sorted(os.listdir(tmp_path)) == sorted(
        f"{kind}_{n}.fits" for kind in ("all", "one") for n in range(6)
    )


def test_full_disk_names_the_file_that_it_met(tmp_path, monkeypatch):
    monkeypatch.setattr(plane_writer, "PIECE", 10)
    write, calls = os.pwrite, []

    def full(descriptor, buffer, position):
        calls.append(descriptor)
        if calls.count(descriptor) > 3 and len(set(calls)) == 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, buffer, position)

    monkeypatch.setattr(plane_writer.os, "pwrite", full)
    plan = [(tmp_path / f"{n}.fits", np.zeros((4, 5)), {"prodtype": "X", "unit": "adu"}) for n in range(3)]
    with pytest.raises(OutputError, match=r"1\.fits: disk full"):
        write_products(plan)
    assert os.listdir(tmp_path) == ["0.fits"]
