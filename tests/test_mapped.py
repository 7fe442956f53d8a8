"""Memory of mapped files that is given back, and planes copied out of them."""

import mmap

import numpy as np
import pytest

from utils.fits_io.mapped import drop_pages, native


def resident(path):
    """Memory of this process that lies in maps of a file [bytes]."""
    total, counted = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as stream:
        for line in stream:
            if "-" in line.split(" ", 1)[0]:
                counted = line.rstrip().endswith(str(path))
            elif counted and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "planes.bin"
    values = np.arange(1 << 20, dtype=">f4").reshape(1024, 1024)
    path.write_bytes(b"x" * 2880 + values.tobytes())
    with open(path, "rb") as stream:
        whole = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    return path, np.frombuffer(whole[2880:], ">f4").reshape(1024, 1024), values


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system has no madvise")
def test_dropped_pages_leave_the_process_and_read_the_same_again(mapped):
    path, plane, values = mapped
    np.testing.assert_array_equal(plane, values)
    assert resident(path) >= plane.nbytes
    drop_pages(plane[512:])
    assert resident(path) < 0.6 * plane.nbytes
    drop_pages(plane)
    assert resident(path) == 0
    np.testing.assert_array_equal(plane, values)


def test_a_native_copy_leaves_no_pages_behind(mapped):
    path, plane, values = mapped
    copy = native(plane)
    assert copy.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(copy, values)
    assert resident(path) == 0
    copy[0, 0] = -1.0
    assert plane[0, 0] == 0.0


def test_other_memory_is_left_as_it_is():
    own = np.arange(5000.0)
    anonymous = np.frombuffer(mmap.mmap(-1, 8192), np.float64)
    anonymous[:] = 3.0  # writable: dropping its pages would lose this
    drop_pages(own, own[10:20], anonymous)
    assert own[4999] == 4999.0
    assert (anonymous == 3.0).all()
