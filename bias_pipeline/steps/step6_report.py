"""Pictures of all products of the output folder, and the report of the run."""

from bias_pipeline.captions import KINDS
from bias_pipeline.steps.step2_make_masters import FRAMES
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT

KEY_NUMBERS = (
    "read noise (median pixel)",
    "a (median pixel)",
    "b (median pixel)",
    "reduced chi2 (mean of good pixels)",
    "RMSE, in-sample",
    "RMSE, temperature left out",
    "extrapolation beyond the fitted range",
)
SECTIONS = (
    (
        "Master biases",
        "Combined frames, one per temperature; the noise of single frames and how steady they are.",
    ),
    ("Bias model", "bias(T) = a + b T for every pixel, with the errors that the masters' scatter allows."),
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
            from bias_pipeline import pictures

            pictures.draw_all(config, record, config.output_dir / FRAMES)
        path = record.claim(config.output_dir / REPORT)
        context = context_of(
            record,
            title="Bias calibration",
            program="bias_pipeline/run_pipeline.py",
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        context["values"] = [*context["values"], *_key_numbers(record.values)]
        write_report(path, context)
        record.add_product(path, "REPORT")
        step.summary = str(path)


def _key_numbers(values):
    """Return the numbers that stand on top of the report, too."""
    return [{**value, "section": ""} for value in values if value["name"] in KEY_NUMBERS]


def _tables(config):
    """Table of the evaluation for the report."""
    path = config.output_dir / "evaluation" / "evaluation_summary.csv"
    columns = {
        "temperature": "T [°C]",
        "frames": "frames",
        "mae": "MAE [ADU]",
        "rmse": "RMSE [ADU]",
        "mean_error": "mean error [ADU]",
        "chi2_red": "reduced χ²",
        "within_3sigma": "within 3 σ",
        "left_out_rmse": "RMSE, left out [ADU]",
        "left_out_mean_error": "mean error, left out [ADU]",
        "left_out_chi2_red": "reduced χ², left out",
        "left_out_is": "left out is",
    }
    return csv_table(path, columns, section="Evaluation", title="Errors at each temperature")
