"""Pictures of masters, illumination and model, from what run.json lists."""

from functools import partial

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
    names, shape = filter_names(known), (0, 0)
    tasks = [partial(_illumination, config, known, name, names[name]) for name in known]
    if "MASTER_FLAT" in kinds:
        filters = models.open_masters(record)
        names, shape = filter_names([masters.filter for masters in filters]), filters[0].shape
        for masters in filters:
            count = len(masters.paths)
            for index in range(count) if config.shared.plots == "all" else [count // 2]:
                tasks.append(partial(_master, config, masters, index, known, names[masters.filter]))
    if "FLAT_A" in kinds:
        tasks += _model_tasks(config, record)
    draw(config, record, tasks, shape)


def _load(known, name):
    """Illumination of a filter from its file, None where there is none."""
    return illumination.load_illuminations([known[name]])[name] if name in known else None


def draw_levels(config, record, flats):
    """Draw the levels of all flats, where pictures are wanted and the levels are known."""
    if config.shared.plots == "none" or any(flat.levels is None for flat in flats):
        return
    from flat_pipeline import figures

    groups = [(flat.name.removeprefix("master_flat_"), flat.levels) for flat in flats]
    path = config.output_dir / FIGURES / "levels.png"
    draw(config, record, [lambda: [(path, figures.levels(groups), "levels", "Frames")]])


def _illumination(config, known, name, spelled):
    from flat_pipeline import figures

    found = _load(known, name)
    path = config.output_dir / FIGURES / f"illumination_{spelled}.png"
    yield path, figures.illumination_map(found.value, name, found.model), "illumination_map", "Illumination"


def _master(config, masters, index, known, spelled):
    """Map, response histogram and profiles of one master; with the middle one of a filter the radial profile."""
    from flat_pipeline import figures

    folder, section = config.output_dir / FIGURES, "Master flats"
    head, stem = masters.headers[index], masters.paths[index].stem
    value, sigma, dq = masters.one(index)
    good = models.speaking(dq) & np.isfinite(value)
    found, corrected = _load(known, masters.filter), bool(head["VIGNCORR"])
    figure = figures.master_map(
        value, masters.filter, head["TEMP"], head["EXPTIME"], head["NCOMBINE"], corrected
    )
    yield folder / f"{stem}.png", figure, "master_map", section
    figure = _histogram(value, sigma, good, masters.filter)
    if figure is not None:
        yield folder / f"response_{stem}.png", figure, "response_histogram", section
    flat, model = value, None
    if found is not None:
        model = found.value
        flat = value * model if corrected else value / np.float32(found.level)
    yield folder / f"profiles_{stem}.png", figures.profiles(flat, model, masters.filter), "profiles", section
    if found is not None and index == len(masters.paths) // 2:
        centre = _centre(found, value.shape)
        # The flat in units of the model has the relative error of the master.
        even = _without_dust(flat, sigma * (model if corrected else 1.0 / found.level), model, good)
        figure = figures.radial_profile(flat, model, centre, even, masters.filter)
        yield folder / f"radial_profile_{spelled}.png", figure, "radial_profile", "Illumination"


def _histogram(value, sigma, good, name):
    """Response of good pixels about their neighbourhood, with the PRNU; None where that is not known."""
    from flat_pipeline import figures

    rows = _bands(value.shape)
    value, sigma, good = (np.concatenate([plane[band] for band in rows]) for plane in (value, sigma, good))
    measured = pixel_response.prnu(value, sigma, good)
    if not np.isfinite(measured.value):
        return None
    ratio = np.empty_like(value)
    for start in range(0, len(value), rows[0].stop - rows[0].start):
        band = slice(start, start + rows[0].stop - rows[0].start)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio[band] = value[band] / pixel_response.local_median(value[band], good[band])
    return figures.response_histogram(ratio[good], measured.value, measured.error, measured.noise, name)


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


def _model_tasks(config, record):
    """A task for each map of the model that has something to show."""
    refs = [ref for ref in record.products() if ref.prodtype.startswith("FLAT_")]
    names = filter_names([ref.facts["filter"] for ref in refs if ref.prodtype == "FLAT_A"])
    terms = (*models.TERMS, "COVARIANCE")
    refs = [ref for ref in refs if ref.prodtype.removeprefix("FLAT_") in terms]
    return [partial(_model_map, config.output_dir / FIGURES, ref, names) for ref in refs]


def _model_map(folder, ref, names):
    from flat_pipeline import figures

    name, term, section = ref.facts.get("filter"), ref.prodtype.removeprefix("FLAT_"), "Flat model"
    tail = f"_{names[name]}" if len(names) > 1 else ""
    if term == "COVARIANCE":
        chi2 = read_plane(ref.path, "CHI2_RED")
        if np.isfinite(chi2).any():
            yield folder / f"chi2{tail}.png", figures.chi2_map(chi2, name), "chi2_map", section
        return
    product = read_product(ref.path)
    if np.nanmax(np.abs(product.data)) > 0:  # a term that is not constrained is 0 everywhere
        image = np.where(models.speaking(product.dq), product.data, np.float32(np.nan))
        figure = figures.term_map(image, term, models.UNITS[term], name)
        yield folder / f"flat_{term}{tail}.png", figure, f"{term.lower()}_map", section
