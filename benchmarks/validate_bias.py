"""Accuracy of the bias pipeline against the truth of simulated cameras: tables and figures of docs/validation.md.

python -m benchmarks.validate_bias            all of it, into docs/
python -m benchmarks.validate_bias --quick    one seed, tables printed, nothing written
"""

import argparse
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks import kernel_checks, simulated_runs, validation_figures
from benchmarks.simulated_runs import CAMERAS, COUNTS, ENDS, SEEDS, SHAPES
from benchmarks.table import Section, machine
from benchmarks.timing import ROOT

DOCUMENT = ROOT / "docs" / "validation.md"
IMAGES = ROOT / "docs" / "images"
REAL = ROOT.parent / "shared" / "realdata"
COARSE = "12 bit, read noise 0.4 LSB"
ORDINARY = [name for name in CAMERAS if name != COARSE]


def three(value):
    return f"{value:.3f}"


def accuracy(found):
    rows = [
        [
            camera,
            count,
            *(three(one.ratio(at)) for at in ENDS),
            three(one.worst),
            one.flagged,
            f"{one.worst_flagged:.1f}",
        ]
        for (camera, count), one in found.items()
        if camera in ORDINARY
    ]
    columns = (
        "camera",
        "frames",
        *(f"rms / CRB at {at:g} °C" for at in ENDS),
        "worst single run",
        "flagged pixels",
        "their largest error [ADU]",
    )
    return Section("", columns, rows)


def pulls(found):
    names = ("a", "b", *(f"{at:g}" for at in ENDS))
    rows = [
        [camera, count, *(three(one.width(name)) for name in names)] for (camera, count), one in found.items()
    ]
    columns = ("camera", "frames", "a", "b", *(f"synthetic {at:g} °C" for at in ENDS))
    return Section("", columns, rows)


def read_noise(found):
    rows = []
    for (camera, count), one in found.items():
        ratio = np.concatenate(one.noise)
        rows.append([camera, count, *(three(f(ratio)) for f in (np.median, np.mean, np.std))])
    return Section("", ("camera", "frames", "median of RN / true", "mean", "scatter over pixels"), rows)


def moderation(found):
    rows = []
    for (camera, count), one in found.items():
        if camera in ORDINARY:
            own, moderated = np.concatenate(one.own), np.concatenate(one.moderated)
            expected = np.sqrt((count - 1) / (count - 3))
            rows.append([camera, count, three(np.std(own)), three(expected), three(np.std(moderated))])
    columns = ("camera", "frames", "own scatter", "expected (Student's t)", "as quoted")
    return Section("", columns, rows)


def coarse(found):
    rows = []
    for count in COUNTS:
        one = found[COARSE, count]
        error, phase = np.concatenate(one.master), np.concatenate(one.phase)
        # Of the first harmonic: what is left when frames without end are averaged.
        swing = 2 * np.abs(np.mean(error * np.exp(2j * np.pi * phase)))
        rows.append(
            [
                count,
                f"{error.mean():+.5f}",
                f"{np.sqrt(0.4**2 + 1 / 12) / np.sqrt(count * error.size):.5f}",
                f"{swing:.4f}",
                three(np.std(np.concatenate(one.moderated))),
            ]
        )
    columns = (
        "frames",
        "mean error [ADU]",
        "its 1 σ [ADU]",
        "amplitude over a step [ADU]",
        "pull width",
    )
    return Section("", columns, rows)


def clipping():
    rows = []
    for label, sigma, step in (("1.5 ADU, no steps", 1.5, 0), ("1.5 steps", 1.5, 1), ("0.4 steps", 0.4, 1)):
        for n in (5, 10, 20, 40):
            found = kernel_checks.clip_efficiency(n, sigma, step)
            rows.append(
                [
                    label,
                    n,
                    three(found["efficiency"]),
                    f"{found['rejected']:.2e}",
                    three(found["mad_efficiency"]),
                    f"{found['mad_rejected']:.2e}",
                ]
            )
    columns = (
        "noise",
        "frames",
        "efficiency",
        "rejected",
        "MAD alone: efficiency",
        "MAD alone: rejected",
    )
    return Section("", columns, rows)


def factors():
    medians = [
        [f"median of {n}", f"{f:.4f}", f"{s:.4f} ± {e:.4f}"] for n, f, s, e in kernel_checks.median_factors()
    ]
    clips = [[f"clip at {k:g} σ", f"{f:.4f}", f"{s:.4f}"] for k, f, s in kernel_checks.clip_factors()]
    return Section("", ("factor", "computed", "simulated"), medians + clips)


def real(folder):
    """Numbers of real sets, or None where the frames are not at hand."""
    sets = (
        ("Orion StarShoot G3, warming up", "orion_g3_astroluminance/Bias", ("--temp-tolerance", "0.5")),
        ("SBIG STL-1001E, several nights", "stl1001_ast443", ()),
    )
    columns = [name for name, *_ in sets]
    rows = {}
    for _, place, options in sets:
        if not (folder / place).is_dir():
            return None
        model, summary, table, warnings = simulated_runs.real_run(folder / place, *options)

        def number(section, name, digits=4, summary=summary):
            value, error = summary[section, name]
            text = f"{float(value):.{digits}g}"
            return f"{text} ± {float(error):.2g}" if error else text

        def column(name, table=table):
            return [float(row[name]) for row in table if row[name] not in ("", "nan")]

        left_out = column("left_out_rmse")
        cells = {
            "bias frames used": str(sum(model["frames"])),
            "temperatures [°C] (frames)": ", ".join(
                f"{t:.1f} ({n})" for t, n in zip(model["temperatures"], model["frames"], strict=True)
            ),
            "slope of the zero level [ADU/K]": number("bias level", "slope of the zero level"),
            "session shifts taken out [ADU]": ", ".join(f"{s:+.2f}" for s in model["session_shift_adu"])
            if any(model["session_shift_adu"])
            else "none",
            "error common to all pixels of a master [ADU]": f"{model['common_error_adu']:.3g}",
            "read noise, median pixel [ADU]": number("camera", "read noise (median pixel)"),
            "b, median pixel [ADU/K]": number("bias model", "b (median pixel)"),
            "reduced χ², good pixels": f"{model['chi2_red_mean']:.3f}",
            "pixels that a line does not describe": f"{model['unreliable_pixels']} of {model['pixels']}",
            "rms in-sample [ADU]": f"{np.mean(column('rmse')):.3f}",
            "rms, temperature left out [ADU]": f"{np.mean(left_out):.3f}" if left_out else "not possible",
            "χ²/pixel, temperature left out": f"{np.mean(column('left_out_chi2_red')):.2f}"
            if left_out
            else "",
            "said by the run": "; ".join(warnings) or "nothing",
        }
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell.replace("|", "/"))
    return Section("", ("", *columns), [[name, *cells] for name, cells in rows.items()])


def body(section):
    """Table without a title."""
    return section.markdown().split("\n", 2)[2].strip()


def put(text, name, content):
    """Replace what stands between the marks of a table in the document."""
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{DOCUMENT}: no mark <!-- {name} -->")
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text, count=1)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validate_bias", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one seed and size, nothing written")
    parser.add_argument("--real", type=Path, default=REAL, help="folder of real frames (not distributed)")
    args = parser.parse_args(argv)
    started = time.perf_counter()

    def say(text):
        print(text, file=sys.stderr, flush=True)

    found = simulated_runs.run_all(
        SEEDS[:1] if args.quick else SEEDS, SHAPES[1:] if args.quick else SHAPES, say=say
    )
    say("kernels")
    tables = {
        "accuracy": accuracy(found),
        "pulls": pulls(found),
        "read noise": read_noise(found),
        "moderation": moderation(found),
        "coarse": coarse(found),
        "clipping": clipping(),
        "factors": factors(),
    }
    say("real frames")
    frames = real(args.real)
    if frames is None:
        say(f"no real frames in {args.real}: that table stays as it is")
    else:
        tables["real"] = frames
    for name, section in tables.items():
        print(f"\n{name}\n\n{body(section)}")
    if args.quick:
        return 0
    from utils.application.figure_style import png_bytes

    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in tables.items():
        text = put(text, name, body(section))
    made = [f"- Date: {datetime.now(UTC):%Y-%m-%d}", *(f"- {line}" for line in machine()[1:])]
    text = put(text, "made", "\n".join([*made, f"- Duration: {time.perf_counter() - started:.0f} s"]))
    DOCUMENT.write_text(text, encoding="utf-8")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("bias_error", validation_figures.error_against_temperature(found, ORDINARY, COUNTS)),
        ("bias_pulls", validation_figures.pull_histograms(found, ORDINARY, 10)),
        ("bias_steps", validation_figures.coarse_steps(found, COUNTS)),
    ):
        (IMAGES / f"{name}.png").write_bytes(png_bytes(figure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
