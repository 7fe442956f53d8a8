"""Pictures of all products of the output folder, and the report of the run."""

from dark_pipeline.captions import KINDS
from dark_pipeline.steps.step7_evaluate import HEAD, SUMMARY_2D
from utils.application.report import context_of, csv_table, write_report
from utils.application.run_record import REPORT

TABLE = "Errors of the 2-D model [ADU/s]; no T, no t: that temperature or exposure left out of the fit"
SECTIONS = (
    ("Dark current", "Maps of the rate above bias, and the pixels that stand out."),
    (
        "Dark model",
        "rate = A t^gamma exp(B (T − T_MIN)) for every pixel, faint ones supported by the sensor's own values.",
    ),
    ("Evaluation", "The models against the maps they were fitted to, and against maps left out of the fit."),
)


def run(config, context):
    """Draw the pictures and write the report.

    Reads: what run.json lists. Writes: figures/*.png, report.html.
    """
    record = context.record
    with record.step("report") as step:
        if config.shared.plots != "none":
            from dark_pipeline import pictures

            pictures.draw_all(config, record)
        path = record.claim(config.output_dir / REPORT)
        context = context_of(
            record,
            title="Dark calibration",
            program="dark_pipeline/run_pipeline.py",
            sections=SECTIONS,
            tables=_tables(config),
            kinds=KINDS,
        )
        write_report(path, context)
        record.add_product(path, "REPORT")
        step.summary = str(path)


def _tables(config):
    """Table of the 2-D evaluation for the report."""
    path = config.output_dir / SUMMARY_2D
    columns = {
        HEAD[0]: "T [°C]",
        HEAD[1]: "t [s]",
        HEAD[2]: "MAE",
        HEAD[3]: "MAPE [%]",
        "mean_error": "mean error",
        "chi2_red": "χ²/dof",
        "within_3sigma": "in 3 σ",
        "left_out_T_mae": "MAE, no T",
        "left_out_T_chi2_red": "χ²/dof, no T",
        "left_out_t_mae": "MAE, no t",
        "left_out_t_chi2_red": "χ²/dof, no t",
    }
    return csv_table(
        path,
        columns,
        section="Evaluation",
        title="Errors of the 2-D model [ADU/s]; no T, no t: with that temperature, exposure left out of the fit",
    )
