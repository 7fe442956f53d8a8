"""What the steps of one run share."""

from dataclasses import dataclass, field

from utils.application.run_record import RunRecord


@dataclass
class Context:
    """The run record, and what early steps leave for the next ones.

    groups (FrameGroup of flats), bias_entries, dark_entries, images (path -> FitsImage) : set by step 1.  dark :
    `DarkSource`, set by step 2.  flats : list of `FlatGroup`, set by step 3.  spool : `ArraySpool` of combined flats.
    """

    record: RunRecord
    groups: list | None = None
    bias_entries: list = field(default_factory=list)
    dark_entries: list = field(default_factory=list)
    images: dict = field(default_factory=dict)
    dark: object = None
    flats: list | None = None
    combined: object = None
