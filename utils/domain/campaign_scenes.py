"""What a simulated campaign looks at, frame by frame: its stars, its lamps' pattern, the changes of its sensor."""

import zlib

from utils.domain.campaign_plan import DAY, EPOCH
from utils.errors import OptionError
from utils.kernels import detector_history
from utils.kernels.scene import Scene, StarField, led_pattern


class CampaignScenes:
    """Scenes of the frames of one checked plan, for a sensor of this specification.

    patterns : {filter: (ny, nx) float32} of the satellite flats.   stars : StarField, or None without sky flats; its
    flux is in pixels of sky.   history : detector_history.History.   states : DetectorState of each session.
    Raises OptionError for changes, stars or lamps that cannot be.
    """

    def __init__(self, plan, spec):
        self.plan = plan
        self.patterns, self.stars = {}, None
        try:
            changes = [_change(entry, spec.shape) for entry in plan["changes"]]
            self.history = detector_history.History(spec.shape, changes, spec.seed)
            for group in plan["flats"]:
                if group["type"] == "sky" and self.stars is None:
                    terms = dict(plan["stars"])
                    margin = terms.pop("dither")
                    self.stars = StarField(spec.shape, seed=[spec.seed, 3], margin=margin, **terms)
                elif group["type"] == "satellite":
                    # Each filter's lamp stands elsewhere.
                    seed = [spec.seed, 4, zlib.crc32(group["filter"].encode())]
                    self.patterns[group["filter"]] = led_pattern(spec.shape, seed, **plan["led"])
        except ValueError as error:
            raise OptionError(f"plan: {error}") from error
        self.states = [self.history.at(day) for day in plan["sessions"]]

    def of_frame(self, attempt, index, full_light):
        """Scene of one frame of an attempt; full_light : level of flux 1 in it [ADU]."""
        terms = {"state": self.states[attempt.session], "cosmic": attempt.cosmic}
        if attempt.type == "satellite":
            terms["pattern"] = self.patterns[attempt.filter]
        elif attempt.type == "sky":
            terms["light"] = self.stars.light(*attempt.dithers[index], attempt.flux * full_light)
        return Scene(**terms)

    def truth(self):
        """Entries of truth.json: epochs, one a session; stars of the undithered frame [pixels, pixels of sky]."""
        epochs = [self._epoch(number, day) for number, day in enumerate(self.plan["sessions"])]
        if self.stars is None:
            return {"epochs": epochs}
        return {"epochs": epochs, "stars": {n: getattr(self.stars, n).tolist() for n in ("x", "y", "flux")}}

    def _epoch(self, number, day):
        """Time, lamp and swing of a session, and the changes that are there by then."""
        plan = self.plan
        told = [_told(n, entry, self.history, day) for n, entry in enumerate(plan["changes"])]
        return {
            "session": number,
            "day": day,
            "time": EPOCH + DAY * day,
            "lamp": plan["lamp"][number] if plan["lamp"] else 1.0,
            "temperature_swing": plan["temperature_swing"][number] if plan["temperature_swing"] else 0.0,
            "changes": [change for change in told if change is not None],
        }


def _change(entry, shape):
    """Change of the sensor, in pixels, from an entry of the plan, in fractions of the frame."""
    ny, nx = shape
    terms = {name: value for name, value in entry.items() if name != "kind" and value is not None}
    if entry["kind"] == "dust":
        place = {"x": entry["x"] * nx - 0.5, "y": entry["y"] * ny - 0.5}
        return detector_history.Dust(**{**terms, **place, "radius": entry["radius"] * (nx**2 + ny**2) ** 0.5})
    kinds = {"film": "Film", "damage": "Damage", "hot_pixels": "HotPixels"}
    return getattr(detector_history, kinds[entry["kind"]])(**terms)


def _told(number, entry, history, day):
    """What there is of one change on that day, None where there is nothing: places [pixels], pixels as [row, column]."""
    change = history.changes[number]
    depth = history.depth(number, day)
    if depth == 0:
        return None
    told = {"change": number, "kind": entry["kind"]}
    if entry["kind"] == "film":
        return {**told, "profile": change.profile, "depth": depth}
    if entry["kind"] == "dust":
        return {
            **told,
            "x": change.x,
            "y": change.y,
            "radius": change.radius,
            "form": change.form,
            "depth": depth,
        }
    rows, columns = history.hit(number, day)
    pixels = [[int(row), int(column)] for row, column in zip(rows, columns, strict=True)]
    return {**told, "drop" if entry["kind"] == "damage" else "rate": depth, "pixels": pixels}
