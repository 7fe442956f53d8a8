"""What the steps of one run share."""

from dataclasses import dataclass

from utils.application.run_record import RunRecord


@dataclass
class Context:
    """record : the run record.  groups : list of FrameGroup, set by step 1 for step 2."""

    record: RunRecord
    groups: list | None = None

    def frames(self):
        """(entry, image) of every frame selected."""
        return [pair for group in self.groups or () for pair in zip(group.entries, group.images, strict=True)]
