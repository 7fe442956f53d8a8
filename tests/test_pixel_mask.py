"""Masks handed over by the user: any FITS image whose pixels are not 0 where marked."""

import numpy as np
import pytest

from tests.stack_frames import write_fits
from utils.domain.pixel_mask import read_pixel_mask
from utils.errors import InputError

MARKED = np.zeros((7, 13), bool)
MARKED[[0, 3, 6], [0, 5, 12]] = True


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("compress", [None, "gz", "fz"])
def test_masks_of_any_type(tmp_path, kind, compress):
    path = tmp_path / f"mask.fits{'' if compress is None else '.' + compress}"
    write_fits(path, (3 * MARKED).astype(kind), compress=compress)
    got = read_pixel_mask(str(path), MARKED.shape)
    assert got.dtype == bool
    np.testing.assert_array_equal(got, MARKED)


def test_unsigned_16_bit_masks_have_a_zero_point(tmp_path):
    write_fits(tmp_path / "mask.fits", (np.where(MARKED, 1, 0) - 32768).astype("i2"), bzero=32768)
    np.testing.assert_array_equal(read_pixel_mask(tmp_path / "mask.fits", MARKED.shape), MARKED)


def test_other_shapes_and_missing_files_are_refused(tmp_path):
    write_fits(tmp_path / "mask.fits", MARKED.astype("u1"))
    with pytest.raises(InputError, match=r"mask\.fits: shape \(7, 13\), expected \(13, 7\) as the frames"):
        read_pixel_mask(tmp_path / "mask.fits", (13, 7))
    with pytest.raises(InputError, match=r"none\.fits"):
        read_pixel_mask(tmp_path / "none.fits", MARKED.shape)
