"""Pictures of masters, illumination and model, from what run.json lists."""

from functools import partial

import numpy as np

from flat_pipeline import models
from flat_pipeline.captions import CAPTIONS
from flat_pipeline.frame_files import listed
from flat_pipeline.products import filter_names
from utils.application.pictures import draw
from utils.fits_io.mapped import drop_pages
from utils.fits_io.product_reader import view_planes
from utils.kernels import flat_bins, pixel_response

FIGURES = "figures"
BAND, SHOWN = 96, 1 << 20
"""Rows of a band, whole blocks of the local median; pixels of a histogram, in bands over the frame, and of a profile."""


def draw_all(config, record):
    """Draw what the products allow."""
    kinds = {ref.prodtype for ref in listed(record)}
    known = {ref.facts["filter"]: view_planes(ref.path) for ref in listed(record, "VIGNETTING")}
    folder, names = config.output_dir / FIGURES, filter_names(known)
    shape = next((planes["PRIMARY"].shape for _, planes in known.values()), (0, 0))
    tasks = [partial(_illumination, folder, known[name], name, names[name]) for name in known]
    if "MASTER_FLAT" in kinds:
        filters = models.open_masters(record)
        names, shape = filter_names([masters.filter for masters in filters]), filters[0].shape
        for masters in filters:
            found, middle = known.get(masters.filter), len(masters.paths) // 2
            for index in range(len(masters.paths)) if config.shared.plots == "all" else [middle]:
                tasks.append(partial(_master, folder, masters, index, found))
            if found is not None:
                tasks.append(partial(_radial, folder, masters, middle, found, names[masters.filter]))
    if "FLAT_A" in kinds:
        tasks += _model_tasks(folder, record)
    draw(config.shared, record, CAPTIONS, tasks, shape)


def draw_levels(config, record, flats):
    """Draw the levels of all flats, where pictures are wanted and the levels are known."""
    if config.shared.plots == "none" or any(flat.levels is None for flat in flats):
        return
    from flat_pipeline import figures

    groups = [(flat.name.removeprefix("master_flat_"), flat.levels) for flat in flats]
    path = config.output_dir / FIGURES / "levels.png"
    draw(config.shared, record, CAPTIONS, [lambda: [(path, figures.levels(groups), "levels", "Frames")]])


def _illumination(folder, found, name, spelled):
    from flat_pipeline import figures

    header, planes = found
    figure = figures.illumination_map(planes["PRIMARY"], name, header.get("MODEL", ""))
    yield folder / f"illumination_{spelled}.png", figure, "illumination_map", "Illumination"


def _master(folder, masters, index, found):
    """Map, response histogram and profiles of one master.  found : header and planes of the illumination, or None."""
    from flat_pipeline import figures

    section, name = "Master flats", masters.filter
    head, stem, value = masters.headers[index], masters.paths[index].stem, masters.values[index]
    figure = figures.master_map(
        value, name, head["TEMP"], head["EXPTIME"], head["NCOMBINE"], bool(head["VIGNCORR"])
    )
    yield folder / f"{stem}.png", figure, "master_map", section
    figure = _histogram(masters, index)
    if figure is not None:
        yield folder / f"response_{stem}.png", figure, "response_histogram", section
    parts = [_with_illumination(masters, index, found, part) for part in figures.stripes(value.shape)]
    yield folder / f"profiles_{stem}.png", figures.profiles(parts, name), "profiles", section
    drop_pages(value, masters.sigmas[index], masters.dqs[index])


def _with_illumination(masters, index, found, part):
    """A part of a master with the illumination in it, and the illumination, None where that is not known."""
    value = masters.values[index][part]
    if found is None:
        return value, None
    header, planes = found
    model = planes["PRIMARY"][part]
    corrected = masters.headers[index]["VIGNCORR"]
    return value * model if corrected else value / np.float32(header["FLATNORM"]), model


def _radial(folder, masters, index, found, spelled):
    """Radial profile of a regular sample of the pixels of a master."""
    from flat_pipeline import figures

    header, (ny, nx) = found[0], masters.shape
    step = max(1, int(np.sqrt(ny * nx / SHOWN)))
    part = (slice(None, None, step), slice(None, None, step))
    flat, model = _with_illumination(masters, index, found, part)
    # The flat in units of the model has the relative error of the master.
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = masters.sigmas[index][part] / masters.values[index][part]
    usable = models.speaking(masters.dqs[index][part]) & np.isfinite(flat)
    drop_pages(masters.values[index], masters.sigmas[index], masters.dqs[index], found[1]["PRIMARY"])
    centre = header.get("X0", (nx - 1) / 2) / step, header.get("Y0", (ny - 1) / 2) / step
    even = _without_dust(flat, relative * flat, model, usable)
    figure = figures.radial_profile(flat, model, centre, even, masters.filter)
    yield folder / f"radial_profile_{spelled}.png", figure, "radial_profile", "Illumination"


def _histogram(masters, index):
    """Response of good pixels about their neighbourhood, with the PRNU of the filter; None where that is not known."""
    from flat_pipeline import figures

    planes = masters.values[index], masters.sigmas[index], masters.dqs[index]
    ratios, noises, head = [], [], masters.headers[index]
    for band in _bands(masters.shape):
        value, sigma, dq = (plane[band] for plane in planes)
        good = models.speaking(dq) & np.isfinite(value)
        with np.errstate(invalid="ignore", divide="ignore"):
            local = pixel_response.local_median(value, good)
            ratios.append((value / local)[good])
            noises.append((sigma / local)[good])
    ratio, noise = np.concatenate(ratios), np.concatenate(noises).astype(np.float64)
    prnu, error = (np.nan if head.get(key) is None else 0.01 * head[key] for key in ("PRNU", "PRNUERR"))
    if np.isnan(prnu) or ratio.size == 0:
        return None
    noise = float(np.sqrt(np.mean(np.square(noise[np.isfinite(noise)]))))
    return figures.response_histogram(ratio, prnu, error, noise, masters.filter)


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


def _model_tasks(folder, record):
    """A task for each map of the model that has something to show."""
    refs = [ref for ref in record.products() if ref.prodtype.startswith("FLAT_")]
    names = filter_names([ref.facts["filter"] for ref in refs if ref.prodtype == "FLAT_A"])
    terms = (*models.TERMS, "COVARIANCE")
    refs = [ref for ref in refs if ref.prodtype.removeprefix("FLAT_") in terms]
    return [partial(_model_map, folder, ref, names) for ref in refs]


def _model_map(folder, ref, names):
    from flat_pipeline import figures

    name, term, section = ref.facts.get("filter"), ref.prodtype.removeprefix("FLAT_"), "Flat model"
    tail = f"_{names[name]}" if len(names) > 1 else ""
    planes = view_planes(ref.path)[1]
    if term == "COVARIANCE":
        chi2 = planes["CHI2_RED"]
        if np.isfinite(chi2).any():
            yield folder / f"chi2{tail}.png", figures.chi2_map(chi2, name), "chi2_map", section
        return
    if np.nanmax(np.abs(planes["PRIMARY"])) > 0:  # a term that is not constrained is 0 everywhere
        image = np.where(models.speaking(planes["DQ"]), planes["PRIMARY"], np.float32(np.nan))
        figure = figures.term_map(image, term, models.UNITS[term], name)
        yield folder / f"flat_{term}{tail}.png", figure, f"{term.lower()}_map", section
