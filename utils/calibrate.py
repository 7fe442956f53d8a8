"""Calibrate frames with the products of the pipelines: bias, dark and flat at each frame's own temperature and exposure.

python -m utils.calibrate FRAME... --bias-model DIR --dark-model DIR --flat FILE --output-dir OUT
"""

import sys
from pathlib import Path
from types import SimpleNamespace

from utils.application.command import run_command
from utils.application.options import CommandParser, SharedOptions, add_shared_options, both
from utils.errors import CalibrationError, InputError

COLUMNS = (
    *("frame", "product", "temperature", "exposure", "filter", "dark", "dark_file", "expected_residual"),
    *("flat", "median", "extrapolated", "warnings"),
)
SHARED = (
    *("output-dir", "gain", "detector", "saturation", "jobs", "overwrite", "resume", "dry-run", "plots"),
    *("verbose", "quiet", "log-file"),
)
PRODUCTS = ("bias_model", "dark_model", "flat")
"""Options that name what frames are calibrated with."""
MOST_PICTURES = 6
MEDIAN_PIXELS = 1 << 16


def main(argv=None):
    """Calibrate; returns the exit status."""
    args = _parser().parse_args(argv)
    from utils.application.log import setup_logging
    from utils.application.resume import Block, run_steps
    from utils.application.run_record import RunRecord
    from utils.fits_io.header_scan import scan_headers

    shared = SharedOptions.from_args(args)
    setup_logging(shared.verbosity, shared.log_file)
    products = _products(args, shared)
    paths, listed = _frames(args.frames)
    argv = sys.argv[1:] if argv is None else argv
    with RunRecord.of(shared, "calibrate", "calibrate", vars(args), argv) as record:
        images = scan_headers(paths, shared.jobs)

        def make(_config, _context):
            if products.advisor is None:
                record.warn("no --dark-model: the dark current stays in the frames")
            rows = _calibrate_all(paths, images, listed, products, shared, record)
            if not rows:
                reasons = [one["reason"] for one in record.missing_list] or ["there are only products"]
                raise InputError(f"none of {len(paths)} frames could be calibrated; the first: {reasons[0]}")
            if not shared.dry_run:
                _report(shared, record, rows)

        config = SimpleNamespace(shared=shared, **{name: getattr(args, name) for name in PRODUCTS})
        block = Block(("calibrate",), (*PRODUCTS, "gain", "detector", "saturation", "plots"), frames=True)
        frames = SimpleNamespace(frames=lambda: [_identity(image) for image in images])
        run_steps(record, ("calibrate",), (block,), {"calibrate": make}, config, frames, dry=("calibrate",))
        return record.finish()


def _identity(image):
    """(what is known of it, image) of a frame: of one that is of no use, why."""
    from utils.fits_io.header_scan import UnusableFits

    if isinstance(image, UnusableFits):
        return {"unusable": str(image)}, SimpleNamespace(size=0, mtime_ns=0)
    return {"path": image.path}, image


def _parser():
    parser = CommandParser(prog="python -m utils.calibrate", description=__doc__.splitlines()[0])
    parser.add_argument(
        "frames", nargs="+", type=Path, metavar="FRAME", help="FITS frame, or a folder of frames"
    )
    parser.add_argument(
        *both("bias-model"),
        type=Path,
        metavar="DIR",
        default=None,
        help="bias model, or output folder of the bias pipeline (default: that of the dark model)",
    )
    parser.add_argument(
        *both("dark-model"),
        type=Path,
        metavar="DIR",
        default=None,
        help="dark model, or output folder of the dark pipeline",
    )
    parser.add_argument(
        "--flat",
        type=Path,
        metavar="PATH",
        default=None,
        help="master flat, or output folder of the flat pipeline",
    )
    add_shared_options(parser, SHARED, output_dir=Path("calibrated"))
    return parser


def _products(args, shared):
    """Open what the frames are calibrated with."""
    from utils.application.product_list import load_products, load_run_file
    from utils.domain.bias_source import load_bias
    from utils.domain.calibrated_frame import Products
    from utils.domain.dark_advisor import DarkAdvisor
    from utils.domain.dark_model import DarkModel
    from utils.domain.flat_source import find_flats
    from utils.errors import OptionError

    advisor, folder = None, args.bias_model
    if args.dark_model is not None:
        model_folder, output = _dark_folders(args.dark_model)
        listed = load_products(output) if output is not None and load_run_file(output)[0] else []
        maps = [p.path for p in listed if p.prodtype == "DARK_CURRENT" and not p.facts.get("misfit")]
        advisor = DarkAdvisor(DarkModel.load(model_folder), maps)
        if folder is None and output is not None and (output / "bias_used").is_dir():
            folder = output / "bias_used"
    if folder is None:
        raise OptionError(
            "--bias-model: got none, expected the folder of a bias model (or --dark-model, which keeps its own)"
        )
    flats = []
    if args.flat is not None:
        flats = find_flats(args.flat, load_products(args.flat) if args.flat.is_dir() else [])
    return Products(
        load_bias(folder, mapped=True),
        advisor,
        flats,
        shared.load_detector(),
        shared.gain,
        None if shared.saturation == "auto" else shared.saturation,
    )


def _dark_folders(path):
    """Folder of the model and output folder of the run (None where it is not known) for either of them."""
    from utils.application.product_list import RUN_FILE

    if (path / "dark_model_2d").is_dir():
        return path / "dark_model_2d", path
    for parent in (path.parent, path.parent.parent):
        if (parent / RUN_FILE).is_file():
            return path, parent
    return path, None


def _frames(given):
    """Paths of the frames, each once: those named, and those in folders named; and which of them are of folders."""
    import os

    from utils.fits_io.find_frames import find_fits

    paths, listed = {}, set()
    for path in given:
        found = [str(path)]
        if path.is_dir():
            found = sorted(file.path for file in find_fits(str(path)).files)
            if not found:
                raise InputError(f"{path}: no FITS file below, expected frames")
            listed.update(found)
        for one in found:
            paths.setdefault(os.path.realpath(one), one)
    return list(paths.values()), listed


def _names(paths):
    """Name of each product, no two alike."""
    from utils.fits_io.naming import unique_names

    stems = [Path(path).name for path in paths]
    for ending in (".gz", ".fz"):
        stems = [stem.removesuffix(ending) for stem in stems]
    return [f"{name}_calibrated.fits" for name in unique_names([Path(stem).stem for stem in stems])]


def _calibrate_all(paths, images, listed, products, shared, record):
    """Calibrate every frame that can be; the others are named as missing, but products in folders.

    images : what `scan_headers` gives for the paths.  listed : paths that were not named one by one.
    Returns rows of the table.
    """
    from utils.application.log import LOGGER
    from utils.domain.calibrated_frame import plan_frame
    from utils.fits_io.header_scan import UnusableFits
    from utils.fits_io.naming import counted

    with record.step("calibrate") as step:
        passed = [
            isinstance(image, UnusableFits) or path not in listed or "PRODTYPE" not in image.cards
            for path, image in zip(paths, images, strict=True)
        ]
        if not all(passed):
            record.warn(
                f"{counted(passed.count(False), 'product')} among the frames of the folders, left out"
            )
        paths, images = (
            [one for one, keep in zip(all_, passed, strict=True) if keep] for all_ in (paths, images)
        )
        plans = {}
        for image, name in zip(images, _names(paths), strict=True):
            try:
                if isinstance(image, UnusableFits):
                    raise image
                plans[name] = plan_frame(image, products)
            except CalibrationError as error:
                record.missing(name, str(error))
        if shared.dry_run:
            for name, plan in plans.items():
                LOGGER.info("would calibrate %s to %s", plan.image.path, shared.output_dir / name)
            return list(plans)
        rows = _write_all(plans, products, shared, record)
        step.summary = f"{len(rows)} of {len(paths)} frames"
    return rows


def _write_all(plans, products, shared, record):
    """Calibrate planned frames, batch after batch.  Returns rows of the table."""
    from utils.application.log import progress
    from utils.domain.calibration_pass import BATCH, calibrate_frames

    rows, named = [], list(plans.items())
    batches = [named[first : first + BATCH] for first in range(0, len(named), BATCH)]
    for batch in progress(batches, len(batches), "batches of frames"):
        paths = [record.claim(shared.output_dir / name) for name, _ in batch]
        todo = [index for index, path in enumerate(paths) if not record.stands(path)]
        plans = [batch[index][1] for index in todo]
        made = calibrate_frames(plans, [paths[i] for i in todo], products, shared.jobs) if todo else []
        faults = [None] * len(batch)
        for index, fault in zip(todo, made, strict=True):
            faults[index] = fault
        for (name, plan), path, fault in zip(batch, paths, faults, strict=True):
            if fault is not None:
                record.missing(name, str(fault))
                continue
            record.add_product(path, "CALIBRATED", what=f"calibrated {Path(plan.image.path).name}")
            record.add_input([plan.image])
            for text in plan.warnings:
                record.warn(f"{Path(plan.image.path).name}: {text}")
            rows.append(_row(plan, path))
            _picture(shared, record, path, len(rows))
    return rows


def _row(plan, path):
    return {
        "frame": plan.image.path,
        "product": path.name,
        "temperature": plan.temperature,
        "exposure": plan.exposure,
        "filter": plan.facts["filter"],
        "dark": None if plan.dark is None else plan.dark.kind,
        "dark_file": None if plan.dark is None else plan.dark.words,
        "expected_residual": None if plan.dark is None else plan.dark.expected,
        "flat": plan.cards["FLATFILE"][0],
        "median": _median(path),
        "extrapolated": plan.cards["EXTRAP"][0],
        "warnings": "; ".join(plan.warnings),
    }


def _median(path):
    """Median of a product, from rows spread over it."""
    from utils.fits_io.frame_sample import spread_rows
    from utils.fits_io.product_reader import view_planes
    from utils.kernels.pieces import median_of_some

    _, planes = view_planes(path)
    values = planes["PRIMARY"]
    count = max(16, MEDIAN_PIXELS // values.shape[1])
    return median_of_some(values[spread_rows(values.shape[0], count)])


def _picture(shared, record, path, number):
    if shared.plots == "none" or (shared.plots == "summary" and number > MOST_PICTURES):
        return
    import numpy as np

    from utils.application.figure_style import png_bytes
    from utils.application.plots import map_with_histogram
    from utils.fits_io.atomic import write_bytes
    from utils.fits_io.product_reader import read_product

    product = read_product(path)
    shown = np.where(product.mask, np.float32(np.nan), product.data)
    figure = map_with_histogram(shown, label="calibrated [ADU]", title=path.stem)
    picture = record.claim(shared.output_dir / "figures" / f"{path.stem}.png")
    write_bytes(picture, [png_bytes(figure)])
    caption = (
        "Calibrated frame, unusable pixels left out. Look for bias pattern, glow, dust and vignetting left."
    )
    record.add_figure(picture, caption, section="Frames")


def _report(shared, record, rows):
    from utils.application.report import context_of, csv_table, write_report
    from utils.application.run_record import REPORT
    from utils.fits_io.atomic import write_csv

    table = record.claim(shared.output_dir / "calibrated_frames.csv")
    write_csv(table, rows, COLUMNS)
    record.add_product(table, "CALIBRATED_FRAMES", what="what each frame was calibrated with")
    shown = {
        "product": "product",
        "temperature": "T [°C]",
        "exposure": "t [s]",
        "filter": "filter",
        "dark": "dark",
        "expected_residual": "dark leaves [ADU]",
        "median": "median [ADU]",
        "warnings": "warnings",
    }
    with record.step("report"):
        path = record.claim(shared.output_dir / REPORT)
        context = context_of(
            record,
            title="Calibrated frames",
            program="python -m utils.calibrate",
            inputs=f"{len(rows)} frames",
            sections=(
                ("Frames", "Bias, dark and flat of each frame's own temperature, exposure and filter."),
            ),
            tables=csv_table(table, shown, section="Frames", title="What was done"),
        )
        write_report(path, context)
        record.add_product(path, "REPORT")


if __name__ == "__main__":
    sys.exit(run_command(main))
