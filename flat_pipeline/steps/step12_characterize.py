"""The camera in numbers: photon transfer, linearity, non-uniformity, dark current; detector.json and a one-page sheet."""

from flat_pipeline.characterization import camera as results
from flat_pipeline.characterization import levels, sheet, uniformity
from utils.application.log import progress
from utils.application.report import context_of, csv_table, write_report
from utils.fits_io.atomic import write_bytes, write_csv
from utils.fits_io.naming import counted

DETECTOR, SHEET, FOLDER = "detector.json", "detector_sheet.html", "characterization"
CAPTIONS = {
    "photon_transfer": "Temporal variance of ordinary pixels against their signal, fitted up to 70 % of the full well."
    " Where it leaves the curve wells fill; residuals should scatter about zero within their errors.",
    "linearity": "Signal against exposure time, as deviation from a straight line. A bend at the top is the well, a slope"
    " all along is the amplifier, or a lamp that drifts.",
    "dsnu_spectra": "Power of the patterns of rows and columns in bias frames. Peaks are pick-up of a period; what lies"
    " above the dashed line is structure of rows or columns.",
    "prnu_spectra": "The same for the response to light, the smooth part taken out.",
}
TABLES = {
    "levels": (
        "Levels",
        {
            "kind": "kind",
            "filter": "filter",
            "temperature": "T [°C]",
            "exposure": "t [s]",
            "frames": "frames",
            "signal": "signal [ADU]",
            "variance": "variance [ADU²]",
            "variance_error": "1 σ",
            "model": "fit [ADU²]",
            "use": "used for",
        },
    ),
    "linearity": (
        "Linearity",
        {
            "exposure": "t [s]",
            "signal": "light [ADU]",
            "deviation_percent": "deviation [%]",
            "error_percent": "1 σ",
            "emva_deviation_percent": "by EMVA 1288 [%]",
            "used": "used",
        },
    ),
    "dark_current": (
        "Dark current",
        {
            "temperature": "T [°C]",
            "levels": "exposures",
            "from_mean": "from the mean [ADU/s]",
            "from_mean_error": "1 σ",
            "from_variance": "from the variance [ADU/s]",
            "from_variance_error": "1 σ",
        },
    ),
    "binned_noise": (
        "Noise of the mean of b × b pixels without light",
        {
            "binning": "b",
            "noise": "noise [ADU]",
            "noise_of_pixels_alone": "if rows and columns had none of their own [ADU]",
        },
    ),
}


def run(config, context):
    """Characterise the camera.

    Reads: the bias, dark and flat frames of step 1, and what step 2 found for bias and dark.
    Writes: detector.json, detector_sheet.html, characterization/*.csv and *.png.
    """
    record = context.record
    with record.step("characterize") as step:
        sampled = levels.sample_flats(context, config)
        setting = levels.find_setting(context, config, sampled)
        temperature = float(
            sum(g.temperature * len(g) for g in context.groups) / sum(map(len, context.groups))
        )
        bias = levels.measure_bias(context, config, setting, temperature)
        source = context.dark
        good = bias.good if bias is not None else _all(source.shape)
        rough = bias.level.found.variance if bias is not None else 0.0
        darks, good = levels.measure_darks(context, config, setting, rough, good, progress)
        base, base_error, origin = results.base_of(bias, darks, source)
        flats = levels.measure_flats(sampled, context, config, setting, base, good, progress)
        camera = results.Camera(setting, bias, darks, flats.levels)
        if origin != "bias frames":
            camera.notes.append(f"noise without light from {origin}: no group has two bias frames")
        results.photon(camera, base, base_error)
        gain = camera.transfer.gain
        if camera.no_gain:
            record.missing("gain", camera.no_gain)
            camera.notes.insert(0, f"gain not told: {camera.no_gain}")
        egain = context.groups[0].entries[0]["egain"]
        results.compare_saturation(camera, config.saturation)
        results.compare_gain(camera, egain and egain * setting.reading.adu_scale)
        results.dark_currents(camera, gain)
        uniformity.dark_uniformity(camera, good)
        reference = max(flats.references.values(), key=lambda one: len(one[0]))
        uniformity.photo_uniformity(camera, reference, good, gain)
        detector = sheet.detector_of(camera, context.groups[0].images[0].cards)
        _write(config, context, camera, detector)
        told = (
            f"gain {gain:.4g} +- {camera.transfer.gain_error:.2g} e-/ADU" if not camera.no_gain else "no gain"
        )
        step.summary = f"{counted(len(flats.levels), 'level')} of flats, {told}"


def _all(shape):
    import numpy as np

    return np.ones(shape, bool)


def _write(config, context, camera, detector):
    record, folder = context.record, config.output_dir / FOLDER
    path = record.claim(config.output_dir / DETECTOR)
    detector.write(path)
    record.add_product(path, "DETECTOR")
    tables = {"levels": (sheet.LEVEL_COLUMNS, sheet.level_rows(camera)), **sheet.other_rows(camera)}
    for name, (columns, rows) in tables.items():
        path = record.claim(folder / f"{name}.csv")
        write_csv(path, rows, columns)
        record.add_product(path, f"CHARACTERIZATION_{name.upper()}")
    for section, name, value, error, unit in sheet.values_of(detector, camera):
        record.value(name, value, unit, error, section=section)
    for note in camera.notes[bool(camera.no_gain) :]:
        record.warn(note)
    pictures = _draw(record, folder, camera) if config.shared.plots != "none" else []
    shown = []
    for name, (title, columns) in TABLES.items():
        if name in tables:
            shown += csv_table(folder / f"{name}.csv", columns, section="Tables", title=title)
    page = context_of(
        record,
        title="Detector sheet",
        program="flat_pipeline/run_pipeline.py",
        inputs=_inputs(camera, detector),
    )
    page |= {
        "figures": pictures,
        "tables": shown,
        "products": [],
        "rejected": (),
        "options": {},
        "steps": (),
        "compact": True,
    }
    path = record.claim(config.output_dir / SHEET)
    write_report(path, page)
    record.add_product(path, "DETECTOR_SHEET")


def _inputs(camera, detector):
    """Say in a line what the camera is and what was used."""
    told = ", ".join(f"{key} {value}" for key, value in detector.camera.items())
    frames = sum(level.frames for level in (*camera.darks, *camera.flats))
    frames += camera.bias.level.frames if camera.bias is not None else 0
    return (
        f"{told + '; ' if told else ''}{frames} frames at {camera.temperature:.1f} °C; levels in product ADU"
        f" ({detector.adu_scale:g} stored units)."
    )


def _draw(record, folder, camera):
    """Draw the figures; returns them as the report takes them."""
    from flat_pipeline.characterization import figures
    from utils.application.figure_style import png_bytes

    made = {} if camera.no_gain else {"photon_transfer": figures.photon_transfer(camera)}
    if camera.response is not None:
        made["linearity"] = figures.deviation(camera)
    if camera.dsnu is not None:
        made["dsnu_spectra"] = figures.spectra(camera.dsnu, "ADU²", "Patterns of bias frames")
    if camera.prnu is not None:
        made["prnu_spectra"] = figures.spectra(camera.prnu, "1", "Patterns of the response to light")
    shown = []
    for name, figure in made.items():
        path = record.claim(folder / f"{name}.png")
        write_bytes(path, [png_bytes(figure)])
        record.add_figure(path, CAPTIONS[name], section="Characterisation")
        shown.append({"section": "Pictures", "caption": CAPTIONS[name], "png": path})
    return shown
