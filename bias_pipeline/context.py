"""What the steps of one run share."""

from dataclasses import dataclass

from utils.application.run_record import RunRecord


@dataclass
class Context:
    """record : the run record.  groups : list of FrameGroup, set by step 1 for step 2."""

    record: RunRecord
    groups: list | None = None
