"""Pictures of the pipelines' READMEs, from the outputs of the demo.

make demo && python -m benchmarks.pictures demo
"""

import io
import sys
from pathlib import Path

from benchmarks.validate_bias import IMAGES
from utils.fits_io.atomic import write_bytes

COLOURS = 256
"""A map of noise in all its shades would be several times as large."""
SHOWN = {
    "bias_chi2": "bias_output/figures/chi2_map.png",
    "bias_pixel_fits": "bias_output/figures/pixel_fits.png",
    "bias_read_noise": "bias_output/figures/read_noise.png",
    "bias_evaluation": "bias_output/evaluation/evaluation_summary.png",
    "dark_against_temperature": "dark_output/figures/against_temperature.png",
    "dark_hot_spectrum": "dark_output/figures/hot_spectrum.png",
    "flat_response": "flat_output/figures/master_flat_VIS_T-5.1_E2.png",
    "flat_radial_profile": "flat_output/figures/radial_profile_VIS.png",
}


def main(argv):
    from PIL import Image

    (demo,) = argv
    for name, place in SHOWN.items():
        with Image.open(Path(demo) / place) as picture:
            small = picture.convert("RGB").quantize(
                COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
            )
        stream = io.BytesIO()
        small.save(stream, "PNG", optimize=True)
        write_bytes(IMAGES / f"{name}.png", [stream.getvalue()])
        print(f"{name}.png: {len(stream.getvalue()) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
