"""Pictures of all products of the output folder, and the report of the run."""

from flat_pipeline.captions import KINDS
from flat_pipeline.steps.step2_dark import TABLE
from flat_pipeline.steps.step10_evaluate import SUMMARY
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT

SECTIONS = (
    ("Frames", "What was subtracted from the flats, and their levels."),
    ("Illumination", "What the optics and the light do: smooth over the frame, divided out of the masters."),
    ("Master flats", "Response of every pixel, with its error."),
    ("Flat model", "flat(T, t) = A + B (T − T_REF) + C (t − E_REF) for every pixel."),
    (
        "Evaluation",
        "The model against the masters it was fitted to, and against masters left out of the fit.",
    ),
)


def run(config, context):
    """Draw the pictures and write the report.

    Reads: what run.json lists. Writes: figures/*.png, report.html.
    """
    record = context.record
    with record.step("report") as step:
        if config.shared.plots != "none":
            from flat_pipeline import pictures

            pictures.draw_all(config, record)
        path = record.claim(config.output_dir / REPORT)
        page = context_of(
            record,
            title="Flat calibration",
            program="flat_pipeline/run_pipeline.py",
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        write_report(path, page)
        record.add_product(path, "REPORT")
        step.summary = str(path)


def _tables(config):
    """Tables of what was subtracted and of the evaluation."""
    darks = {
        "filter": "filter",
        "temperature": "T [°C]",
        "exposure": "t [s]",
        "flats": "flats",
        "what": "subtracted",
        "level": "its median [ADU]",
        "extrapolated": "extrapolated",
    }
    errors = {
        "filter": "filter",
        "temperature": "T [°C]",
        "exposure": "t [s]",
        "frames": "frames",
        "mae": "MAE",
        "mape": "MAPE [%]",
        "mean_error": "mean error",
        "chi2_red": "reduced χ²",
        "within_3sigma": "within 3 σ",
        "left_out_mae": "MAE, left out",
        "left_out_chi2_red": "reduced χ², left out",
    }
    return [
        *csv_table(config.output_dir / TABLE, darks, section="Frames", title="What was subtracted"),
        *csv_table(config.output_dir / SUMMARY, errors, section="Evaluation", title="Errors of the model"),
    ]
