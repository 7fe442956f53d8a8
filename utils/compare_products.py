"""Compare a product with an earlier one of its kind, in sigma: pass or fail.

python -m utils.compare_products NEW OLD [--output-dir comparison]
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from utils.application.command import run_command
from utils.application.options import CommandParser, both, positive_number
from utils.errors import InputError

SAME = (
    "PRODTYPE",
    "BUNIT",
    "ADUSCALE",
    "GAIN",
    "XBINNING",
    "YBINNING",
    "FILTER",
    "INSTRUME",
    "GAMMADEF",
    "VIGNCORR",
)
"""What two products must share to be compared at all."""
CHANGED_SIGMA = 5.0
LIMITS = {
    "level": (1.0, "SIGMA", "change of the level, in errors of a pixel"),
    "scatter": (1.5, "SIGMA", "robust scatter of difference / error"),
    "changed": (1e-4, "FRACTION", f"pixels that changed by more than {CHANGED_SIGMA:g} sigma, beyond chance"),
    "pattern": (0.5, "SIGMA", "rms of row, column and large-scale patterns, in errors of a pixel"),
    "flags": (1e-3, "FRACTION", "pixels whose DQ changed, or that only one has a value and error of"),
}
COLUMNS = {
    "criterion": "criterion",
    "value": "found",
    "error": "1 sigma",
    "limit": "limit",
    "passed": "passed",
}


@dataclass(frozen=True)
class Criterion:
    """One line of the verdict."""

    criterion: str
    value: float | str
    error: float | None
    limit: float | str
    passed: bool


def main(argv=None):
    """Compare, write what was found, print the verdict; status 0 pass, 1 fail, 2 not comparable."""
    args = _parser().parse_args(argv)
    from utils.application.log import setup_logging
    from utils.application.run_record import RunRecord
    from utils.fits_io.product_reader import read_product

    new, old = read_product(args.new), read_product(args.old)
    _refuse_different_kinds(new, old)
    setup_logging(0, None)
    argv = sys.argv[1:] if argv is None else argv
    with RunRecord(
        args.output_dir, "compare", "compare", vars(args), argv, overwrite=args.overwrite
    ) as record:
        record.add_input([args.new, args.old])
        with record.step("compare") as step:
            found, criteria, flags = judge(new, old, args)
            passed = all(one.passed for one in criteria)
            step.summary = f"{found.pixels} pixels"
            _write_tables(args.output_dir, record, criteria, flags)
            _draw(args.output_dir, record, found, new, old)
        for one in criteria:
            print(
                f"{'pass' if one.passed else 'FAIL'}  {one.criterion}: {_shown(one.value)}, limit {_shown(one.limit)}"
            )
        if not passed:
            record.missing("agreement", ", ".join(one.criterion for one in criteria if not one.passed))
        _write_report(args.output_dir, record, new, old, criteria)
        print(f"{'pass' if passed else 'FAIL'}: {args.new} against {args.old}")
        return record.finish()


def _parser():
    parser = CommandParser(prog="python -m utils.compare_products", description=__doc__.splitlines()[0])
    parser.add_argument("new", metavar="NEW", type=Path, help="product")
    parser.add_argument("old", metavar="OLD", type=Path, help="earlier product of the same kind")
    parser.add_argument(
        *both("output-dir"), type=Path, metavar="OUT", default=Path("comparison"), help="for the report"
    )
    for name, (value, unit, what) in LIMITS.items():
        parser.add_argument(
            f"--{name}", type=positive_number, metavar=unit, default=value, help=f"limit: {what}"
        )
    parser.add_argument("--overwrite", action="store_true", help="write over files that no earlier run made")
    return parser


def _refuse_different_kinds(new, old):
    for key in SAME:
        mine, other = new.header.get(key), old.header.get(key)
        if mine is not None and other is not None and mine != other:
            raise InputError(f"{new.path}: {key} {mine}, expected {other} as in {old.path}")
    if new.data.shape != old.data.shape:
        raise InputError(f"{new.path}: shape {new.data.shape}, expected {old.data.shape} as in {old.path}")
    if new.data.dtype.kind != "f":
        raise InputError(
            f"{new.path}: a map of flags, expected values (python -m utils.bad_pixels compares flags)"
        )


def judge(new, old, limits):
    """Compare two products; ``limits`` : attributes level, scatter, changed, pattern, flags.

    Returns the `Difference`, a list of `Criterion`, and rows of what changed in DQ.
    """
    import numpy as np

    from utils.fits_io.validity import Validity
    from utils.kernels.product_difference import compare

    now, then = _told(new), _told(old)
    usable = ~(new.mask | old.mask) & now & then
    if not usable.any():
        raise InputError(f"{new.path}: no pixel that it and {old.path} can use, expected some")
    found = compare(new.data, old.data, new.uncert, old.uncert, usable, CHANGED_SIGMA)
    flags = _flag_changes(new, old)
    level = abs(found.level) / found.sigma if found.sigma > 0 else math.inf if found.level else 0.0
    beyond = max(found.changed - found.expected, 0.0) / found.pixels
    changed_flags = float(np.count_nonzero((_quality(new) != _quality(old)) | (now != then))) / new.data.size
    criteria = [
        _criterion("level [sigma of a pixel]", level, found.level_error / (found.sigma or 1.0), limits.level),
        _criterion("changed pixels beyond chance [fraction]", beyond, None, limits.changed),
        _criterion("DQ changed [fraction]", changed_flags, None, limits.flags),
    ]
    if not found.assumed:
        criteria.insert(1, _criterion("scatter of difference / error", found.scatter, None, limits.scatter))
    for name in ("rows", "columns", "blocks"):
        rms, error = getattr(found, name)
        real = rms > 0 and rms * rms > 5.0 * error * error
        what = "large scales" if name == "blocks" else name
        criteria.append(
            Criterion(
                f"pattern of {what} [sigma of a pixel]",
                max(rms, 0.0),
                error,
                limits.pattern,
                not (real and rms > limits.pattern),
            )
        )
    apart = Validity.of(new.header).apart(Validity.of(old.header))
    criteria.append(Criterion("validity", "; ".join(apart) or "overlaps", None, "overlaps", not apart))
    return found, criteria, flags


def _criterion(name, value, error, limit):
    return Criterion(name, value, error, limit, value <= limit)


def _told(product):
    """Pixels with a value, and an error where the product tells errors (bool)."""
    import numpy as np

    finite = np.isfinite(product.data)
    return finite if product.uncert is None else finite & np.isfinite(product.uncert)


def _quality(product):
    import numpy as np

    return np.zeros(product.data.shape, np.int16) if product.dq is None else product.dq


def _flag_changes(new, old):
    """Pixels that gained and lost each bit of DQ."""
    import numpy as np

    from utils.fits_io.products import DQ

    now, then = _quality(new), _quality(old)
    return [
        {
            "bit": bit.name,
            "old": int(np.count_nonzero(then & bit)),
            "new": int(np.count_nonzero(now & bit)),
            "gained": int(np.count_nonzero(now & ~then & bit)),
            "lost": int(np.count_nonzero(then & ~now & bit)),
        }
        for bit in DQ
        if ((now | then) & bit).any()
    ]


def _shown(value):
    return value if isinstance(value, str) else f"{value:.3g}"


def _write_tables(folder, record, criteria, flags):
    from dataclasses import asdict

    from utils.fits_io.atomic import write_csv

    for name, rows, columns, what in (
        ("comparison.csv", [asdict(one) for one in criteria], tuple(COLUMNS), "criteria and verdict"),
        (
            "dq_changes.csv",
            flags,
            ("bit", "old", "new", "gained", "lost"),
            "pixels that gained and lost flags",
        ),
    ):
        path = record.claim(folder / name)
        write_csv(path, rows, columns)
        record.add_product(path, "COMPARISON", what=what)


def _draw(folder, record, found, new, old):
    """Map and histogram of the difference in sigma."""
    import numpy as np

    from utils.application.figure_style import png_bytes
    from utils.application.plots import map_with_histogram
    from utils.fits_io.atomic import write_bytes

    def gauss(z):
        return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)

    figure = map_with_histogram(
        found.z,
        label="(new − old − level) / error",
        title=f"{new.prodtype}: difference in sigma",
        limits=(-CHANGED_SIGMA, CHANGED_SIGMA),
        symmetric=True,
        expected=(gauss, "noise alone"),
    )
    path = record.claim(folder / "figures" / "difference.png")
    write_bytes(path, [png_bytes(figure)])
    caption = (
        "Difference of the two products less its median, by its error; the curve is what noise alone gives. Look for"
        " structure in the map and for wings of the histogram."
    )
    record.add_figure(path, caption, section="Difference")
    record.value("level, new - old", found.level, new.unit, found.level_error, section="difference")
    record.value("error of a pixel (median)", found.sigma, new.unit, section="difference")
    record.value("scatter of difference / error", found.scatter, section="difference")
    record.value(f"pixels beyond {CHANGED_SIGMA:g} sigma", found.changed, section="difference")
    record.value("of these expected by chance", found.expected, section="difference")
    if found.assumed:
        record.warn("the products tell no errors: the scatter of their difference serves as error")
    elif new.uncert is None or old.uncert is None:
        record.warn(
            f"{(new if new.uncert is None else old).path} tells no errors: those of the other alone serve"
        )


def _write_report(folder, record, new, old, criteria):
    from utils.application.report import context_of, csv_table, write_report
    from utils.application.run_record import REPORT

    tables = csv_table(folder / "comparison.csv", COLUMNS, section="Verdict", title="Criteria")
    columns = {"bit": "DQ bit", "old": "old", "new": "new", "gained": "gained", "lost": "lost"}
    tables += csv_table(folder / "dq_changes.csv", columns, section="Flags", title="Pixels with a flag")
    passed = all(one.passed for one in criteria)
    path = record.claim(folder / REPORT)
    context = context_of(
        record,
        title=f"Comparison: {'pass' if passed else 'FAIL'}",
        program="python -m utils.compare_products",
        inputs=f"new: {new.path}; old: {old.path}",
        sections=(
            ("Verdict", "Each criterion with its limit; a pattern fails where it is significant as well."),
        ),
        tables=tables,
    )
    write_report(path, context)
    record.add_product(path, "REPORT")


if __name__ == "__main__":
    sys.exit(run_command(main))
