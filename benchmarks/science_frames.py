"""Products and science frames to calibrate: ``python -m benchmarks.science_frames make FOLDER SIDE N``; with ccdproc:
``python -m benchmarks.science_frames ccdproc FOLDER``, each frame by `ccdproc.ccd_process` as its documentation shows.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

EXPOSURE, GAIN, READ_NOISE = 30.0, 1.5, 3.0


def make(folder, side, count):
    """Write a bias and a dark model, a master flat and frames."""
    from benchmarks.frames import START, bias_cards, write_frame
    from utils.fits_io.products import write_product

    folder, shape = Path(folder), (int(side), int(side))
    rng = np.random.default_rng(1)
    one, dq = np.ones(shape, np.float32), np.zeros(shape, np.int16)
    cards = {"ADUSCALE": 1.0, "T_MIN": -20.0, "T_MAX": 20.0, "TTOL": 0.5, "EGAIN": GAIN}

    def write(name, data, prodtype, unit, sigma=None, **more):
        extra = more.pop("extra", ())
        write_product(
            folder / name,
            data,
            prodtype=prodtype,
            unit=unit,
            cards=cards | more,
            uncert=None if sigma is None else sigma * one,
            dq=dq,
            extra=extra,
        )

    write("bias_model/bias_a_map.fits", rng.normal(1000, 20, shape), "BIAS_A", "adu", 0.3)
    write("bias_model/bias_b_map.fits", rng.normal(0.3, 0.02, shape), "BIAS_B", "adu/K", 0.015)
    write("bias_model/bias_ab_covariance.fits", 0 * one, "BIAS_COVARIANCE", "adu2/K")
    write("bias_model/read_noise.fits", READ_NOISE / GAIN * one, "READ_NOISE", "adu", LSB=1.0)
    dark = {"E_MIN": 1.0, "E_MAX": 100.0, "B_G": 0.11}
    model = "dark_model_2d"
    write(f"{model}/A_map_2D.fits", rng.lognormal(-1, 0.3, shape), "DARK_A_2D", "adu/s", 0.02, **dark)
    write(f"{model}/B_map_2D.fits", 0.11 * one, "DARK_B_2D", "1/K", 0.003, **dark)
    write(f"{model}/GAMMA_map_2D.fits", 0 * one, "DARK_GAMMA_2D", "", 0.003, **dark)
    mixed = [("COV_AG", 0 * one, "adu/s"), ("COV_BG", 0 * one, "1/K")]
    write(f"{model}/covariance_2D.fits", 0 * one, "DARK_COVARIANCE_2D", "adu/(s K)", extra=mixed, **dark)
    write("flat.fits", rng.normal(1, 0.01, shape), "MASTER_FLAT", "", 0.001, FILTER="NONE", TEMP=0.0)
    for number in range(int(count)):
        header = bias_cards(0.7 * number, START + 60 * number)
        header |= {"IMAGETYP": "Light Frame", "EXPTIME": EXPOSURE}
        samples = rng.poisson(1500, shape).astype(np.uint16)
        write_frame(folder / "science" / f"frame_{number:03d}.fits", samples, header)


def ccdproc_frames(folder):
    """Calibrate every frame with ccdproc, error included, and write it."""
    warnings.simplefilter("ignore")
    import ccdproc
    from astropy import units as u
    from astropy.nddata import CCDData, StdDevUncertainty

    folder = Path(folder)

    def product(name):
        found = CCDData.read(folder / name)
        return CCDData(found.data, unit=u.adu, uncertainty=StdDevUncertainty(found.uncertainty.array))

    bias = product("bias_model/bias_a_map.fits")
    dark, flat = product("dark_model_2d/A_map_2D.fits"), product("flat.fits")
    for path in sorted((folder / "science").glob("*.fits")):
        frame = CCDData.read(path, unit="adu")
        done = ccdproc.ccd_process(
            frame,
            error=True,
            gain=GAIN * u.electron / u.adu,
            readnoise=READ_NOISE * u.electron,
            master_bias=bias,
            dark_frame=dark,
            master_flat=flat,
            dark_exposure=1.0 * u.s,
            data_exposure=EXPOSURE * u.s,
            dark_scale=True,
            gain_corrected=False,
        )
        done.write(folder / "ccdproc.fits", overwrite=True)


if __name__ == "__main__":
    {"make": make, "ccdproc": ccdproc_frames}[sys.argv[1]](*sys.argv[2:])
