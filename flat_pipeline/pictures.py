"""Pictures of masters, illumination and model, from what run.json lists."""

import numpy as np

from flat_pipeline import illumination, models
from flat_pipeline.evaluation_pictures import draw
from flat_pipeline.frame_files import listed
from flat_pipeline.products import filter_names
from utils.fits_io.product_reader import read_plane, read_product
from utils.kernels import flat_bins, pixel_response

FIGURES = "figures"
BAND, SHOWN = 96, 1 << 20
"""Rows of a band, whole blocks of local median and PRNU; pixels, in bands spread over the frame, of a histogram."""


def draw_all(config, record):
    """Draw what the products allow."""
    kinds = {ref.prodtype for ref in listed(record)}
    known = {ref.facts["filter"]: ref for ref in listed(record, "VIGNETTING")}
    names = filter_names(known)
    for name in known:
        _draw_illumination(config, record, _load(known, name), names[name])
    if "MASTER_FLAT" in kinds:
        filters = models.open_masters(record)
        names = filter_names([masters.filter for masters in filters])
        for masters in filters:
            _draw_masters(config, record, masters, _load(known, masters.filter), names[masters.filter])
    if "FLAT_A" in kinds:
        _draw_model(config, record)


def _load(known, name):
    """Illumination of a filter from its file, None where there is none."""
    return illumination.load_illuminations([known[name]])[name] if name in known else None


def draw_levels(config, record, flats):
    """Draw the levels of all flats, where pictures are wanted and the levels are known."""
    if config.shared.plots == "none" or any(flat.levels is None for flat in flats):
        return
    from flat_pipeline import figures

    groups = [(flat.name.removeprefix("master_flat_"), flat.levels) for flat in flats]
    draw(record, config.output_dir / FIGURES / "levels.png", figures.levels(groups), "levels", "Frames")


def _draw_illumination(config, record, found, spelled):
    from flat_pipeline import figures

    path = config.output_dir / FIGURES / f"illumination_{spelled}.png"
    figure = figures.illumination_map(found.value, found.filter, found.model)
    draw(record, path, figure, "illumination_map", "Illumination")


def _draw_masters(config, record, masters, found, spelled):
    """Map, response histogram, profiles of the middle master of a filter (of all with --plots all)."""
    from flat_pipeline import figures

    folder = config.output_dir / FIGURES
    count = len(masters.paths)
    for index in range(count) if config.shared.plots == "all" else [count // 2]:
        head = masters.headers[index]
        value, sigma, dq = masters.one(index)
        good = models.speaking(dq) & np.isfinite(value)
        corrected = bool(head["VIGNCORR"])
        figure = figures.master_map(
            value, masters.filter, head["TEMP"], head["EXPTIME"], head["NCOMBINE"], corrected
        )
        stem = masters.paths[index].stem
        draw(record, folder / f"{stem}.png", figure, "master_map", "Master flats")
        _draw_histogram(record, folder / f"response_{stem}.png", value, sigma, good, masters.filter)
        flat, model = value, None
        if found is not None:
            model = found.value
            flat = value * model if corrected else value / np.float32(found.level)
        figure = figures.profiles(flat, model, masters.filter)
        draw(record, folder / f"profiles_{stem}.png", figure, "profiles", "Master flats")
        if found is not None and index == count // 2:
            centre = _centre(found, value.shape)
            # The flat in units of the model has the relative error of the master.
            even = _without_dust(flat, sigma * (model if corrected else 1.0 / found.level), model, good)
            figure = figures.radial_profile(flat, model, centre, even, masters.filter)
            path = folder / f"radial_profile_{spelled}.png"
            draw(record, path, figure, "radial_profile", "Illumination")


def _draw_histogram(record, path, value, sigma, good, name):
    """Response of good pixels about their neighbourhood, with the PRNU."""
    from flat_pipeline import figures

    rows = _bands(value.shape)
    value, sigma, good = (np.concatenate([plane[band] for band in rows]) for plane in (value, sigma, good))
    measured = pixel_response.prnu(value, sigma, good)
    if not np.isfinite(measured.value):
        return
    ratio = np.empty_like(value)
    for start in range(0, len(value), rows[0].stop - rows[0].start):
        band = slice(start, start + rows[0].stop - rows[0].start)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio[band] = value[band] / pixel_response.local_median(value[band], good[band])
    figure = figures.response_histogram(ratio[good], measured.value, measured.error, measured.noise, name)
    draw(record, path, figure, "response_histogram", "Master flats")


def _bands(shape):
    """Slices of equal numbers of rows, spread over the frame, that hold about SHOWN pixels; the whole of small frames."""
    ny, nx = shape
    count = max(4, SHOWN // (BAND * nx))
    if ny < BAND * count * 2:
        return [slice(0, ny)]
    return [slice(first, first + BAND) for first in np.linspace(0, ny - BAND, count).astype(int) // 2 * 2]


def _without_dust(flat, sigma, model, usable):
    """Usable pixels outside of the bins that the fit of the illumination leaves out, (ny, nx) bool."""
    bins = flat_bins.bin_flat(np.where(usable, flat, np.float32(np.nan)), sigma, model)
    x, y = (centre.astype(int) for centre in (bins.x, bins.y))
    # Centres lie on pixels, or in the middle between four of them.
    x1, y1 = (np.ceil(centre).astype(int) for centre in (bins.x, bins.y))
    left_out = flat_bins.spoiled(bins, 0.5 * (model[y, x] + model[y1, x1]))
    blocks = np.repeat(np.repeat(left_out, bins.size, axis=0), bins.size, axis=1)
    return usable & ~blocks[: flat.shape[0], : flat.shape[1]]


def _centre(found, shape):
    head = read_product(found.path).header
    return head.get("X0", (shape[1] - 1) / 2), head.get("Y0", (shape[0] - 1) / 2)


def _draw_model(config, record):
    from flat_pipeline import figures

    folder, section = config.output_dir / FIGURES, "Flat model"
    refs = [ref for ref in record.products() if ref.prodtype.startswith("FLAT_")]
    names = filter_names([ref.facts["filter"] for ref in refs if ref.prodtype == "FLAT_A"])
    for ref in refs:
        name = ref.facts.get("filter")
        tail = f"_{names[name]}" if len(names) > 1 else ""
        term = ref.prodtype.removeprefix("FLAT_")
        if term in models.TERMS:
            product = read_product(ref.path)
            if not np.nanmax(np.abs(product.data)) > 0:
                continue  # a term that is not constrained is 0 everywhere
            image = np.where(models.speaking(product.dq), product.data, np.float32(np.nan))
            figure = figures.term_map(image, term, models.UNITS[term], name)
            draw(record, folder / f"flat_{term}{tail}.png", figure, f"{term.lower()}_map", section)
        elif term == "COVARIANCE":
            chi2 = read_plane(ref.path, "CHI2_RED")
            if np.isfinite(chi2).any():
                draw(record, folder / f"chi2{tail}.png", figures.chi2_map(chi2, name), "chi2_map", section)
