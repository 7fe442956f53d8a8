"""Small attempts of raw frames for tests of the converter."""

import csv

import numpy as np
from astropy.io import fits

from utils import raw_to_fits
from utils.raw_to_fits import convert_attempt

SHAPE = (6, 10)
CONFIG = "WIDTH=10\nHEIGHT=6\nBIT_DEPTH=16\n"
COLUMNS = (
    "FrameNum,TimeStamp,ExpTime,RealExpTime,ExpGain,Temperature,InitialTemp,ExtTemperature,"
    "DeltaTemperature,PowerCons"
)
ROW = "1700000000.25,100000,100014,120,-10.5,-10,21.5,0.5,3.25"


def image_of(number):
    return np.random.default_rng(number).integers(0, 65536, SHAPE, dtype=np.uint16)


def make_attempt(folder, *, frames=3, config=CONFIG, log=None, name="f{}.raw", subdir="frames"):
    """An attempt of small frames; log None: the usual columns, '': no log."""
    (folder / subdir).mkdir(parents=True)
    if config is not None:
        (folder / "configFile.txt").write_bytes(config if isinstance(config, bytes) else config.encode())
    if log is None:
        log = "\n".join([COLUMNS, *(f"{number},{ROW}" for number in range(frames)), ""])
    if log:
        (folder / "temperatureLog.csv").write_bytes(log if isinstance(log, bytes) else log.encode())
    for number in range(frames):
        image_of(number).astype("<u2").tofile(folder / subdir / name.format(number))
    return folder


def header_of(tmp_path, *, config=CONFIG, log=None, name="f{}.raw"):
    attempt = make_attempt(tmp_path / "attempt1", frames=1, config=config, log=log, name=name)
    (path,) = convert_attempt(attempt, "DARK")
    check_valid(path)
    return fits.getheader(path)


def check_valid(path):
    """Both checksums right, the header verifies: astropy warns otherwise, and warnings are errors."""
    with fits.open(path, checksum=True) as hdus:
        assert len(hdus) == 1
        hdus.verify("exception")
        assert hdus[0].header["DATASUM"].isdigit()
        return hdus[0].data.copy(), hdus[0].header.copy()


def campaign(tmp_path, **arguments):
    for section in ("Bias/T-10/attempt1", "Darks/20Frames/1s/T-10/attempt1", "Flats/R/T20/attempt1"):
        make_attempt(tmp_path / section, **arguments)
    return [str(tmp_path / name) for name in ("Bias", "Darks", "Flats")]


def table(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def run(*arguments):
    return raw_to_fits.main([str(argument) for argument in arguments])


def reasons(tmp_path, name):
    rows = [row for row in table(tmp_path / "conversion_report.csv") if row["PATH"].endswith(name)]
    return [(row["SEVERITY"], row["REASON"]) for row in rows]
