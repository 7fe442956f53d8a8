"""What the steps of one run share."""

import contextlib
from dataclasses import dataclass, field

from utils.application.run_record import RunRecord


@dataclass
class Context:
    """Options, run record, and what early steps leave for the next ones.

    stack : closes what steps leave open, at the end of the run.  steps : of the mode.
    groups (FrameGroup of flats), bias_entries, dark_entries, images (path -> FitsImage) : set by step 1.
    dark : `DarkSource`, dark_rows : what each group gets, set by step 2.
    flats : list of `FlatGroup`, setting : `Setting`, set by step 3, or from files of earlier runs.
    combined : `CombinedFlats`, set by step 6.
    illumination : filter -> `Illumination`, set by step 7.
    """

    config: object
    record: RunRecord
    stack: contextlib.ExitStack
    steps: tuple = ()
    groups: list | None = None
    bias_entries: list = field(default_factory=list)
    dark_entries: list = field(default_factory=list)
    images: dict = field(default_factory=dict)
    dark: object = None
    dark_rows: list = field(default_factory=list)
    flats: list | None = None
    setting: object = None
    combined: object = None
    illumination: dict = field(default_factory=dict)

    def waiting(self):
        """Bytes of memory that combined groups take."""
        return 0 if self.combined is None else self.combined.spool.in_memory

    def frames(self):
        """(entry, image) of every frame selected."""
        flats = [entry for group in self.groups or () for entry in group.entries]
        entries = (*flats, *self.dark_entries, *self.bias_entries)
        return [(entry, self.images[entry["original_path"]]) for entry in entries]
