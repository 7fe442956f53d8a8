"""What the tests of faults share: one small campaign for all pipelines, and every command that reads it."""

import shutil

import dark_frames
import flat_frames

from bias_pipeline.run_pipeline import main as bias_main
from dark_pipeline.run_pipeline import main as dark_main
from flat_pipeline.run_pipeline import main as flat_main
from utils.application.command import run_command

SHAPE = (32, 40)
PIPELINES = {"bias": bias_main, "dark": dark_main, "flat": flat_main}


def campaign(folder, seed=7, *, shape=SHAPE, n=5):
    """Biases at four temperatures, darks at two and two exposures, flats at one: ``n`` of each."""
    camera = dark_frames.sensor(shape, seed)
    small = {"temperatures": (0, 10), "exposures": (5, 20), "bias_temperatures": (-5, 0, 10, 15)}
    dark_frames.campaign(folder, camera, seed, n=n, bias_n=n, **small)
    flat_frames.take(folder, camera, "flat", [(0.0, 5.0, n, 1400.0), (10.0, 5.0, n, 1400.0)], [seed, 3])
    return camera


def copy(folder, target):
    """A copy of a campaign, times of change included."""
    return shutil.copytree(folder, target, copy_function=shutil.copy2)


def run(name, *words):
    """Run one of the pipelines in this process; returns its exit status."""
    return run_command(PIPELINES[name], [*(str(word) for word in words), "--plots", "none"])
