"""What the steps of one run share."""

from dataclasses import dataclass

from utils.application.run_record import RunRecord


@dataclass
class Context:
    """The run record, and what early steps leave for the next ones.

    groups (FrameGroup of dark frames), bias_entries, images (path -> FitsImage) : set by step 1.  bias : `BiasSource` or
    None, set by step 2.
    """

    record: RunRecord
    groups: list | None = None
    bias_entries: list | None = None
    images: dict | None = None
    bias: object = None

    def frames(self):
        """(entry, image) of every frame selected."""
        entries = [entry for group in self.groups or () for entry in group.entries]
        return [
            (entry, self.images[entry["original_path"]]) for entry in (*entries, *(self.bias_entries or ()))
        ]
