"""A simulated CMOS sensor with known truth: the measure of all tests, and the source of the demo campaign.

    sensor = Sensor(SensorSpec(shape=(64, 48), seed=3))
    samples = sensor.stack("bias", [-10.0, -9.9, -9.8], rng=7)   # (3, 64, 48) uint16, as the camera stores
    frames = sensor.to_adu(samples)                              # float32, product ADU
    truth = sensor.true_bias(-9.9)

A frame is made in the order of the camera: dark and photo charge (Poisson), cosmic hits, full well, then the
amplifier (bias, row, column, telegraph and read noise), then the converter (rounding, range, left justification).
What it looks at, and what befell it, is a ``scene.Scene``: stars, the pattern of lamps, dust, films, damage.
Units as in ``sensor_spec``: levels in product ADU, charge in electrons, degC, seconds.
"""

import numpy as np

from utils.kernels import sensor_maps
from utils.kernels.scene import Scene
from utils.kernels.sensor_spec import SensorSpec

__all__ = ["KINDS", "Sensor", "SensorSpec", "digitise", "poisson"]

KINDS = ("bias", "dark", "flat")

_POISSON_EXACT = 200.0  # electrons; above, a normal deviate differs by a skewness of less than 0.07
_NONLINEARITY_POWER = 6
_LONGEST_TRACK = 4
_NOTHING = Scene()


def poisson(mean, rng):
    """Poisson deviates of non-negative means, any shape, float32; normal ones of that variance above 200."""
    small = mean < _POISSON_EXACT
    if small.all():
        return rng.poisson(mean).astype(np.float32)
    out = mean + np.sqrt(mean) * rng.standard_normal(mean.shape, dtype=np.float32)
    out[small] = rng.poisson(mean[small])
    return out.astype(np.float32, copy=False)


def digitise(adu, bit_depth, left_justified):
    """Sample as the converter does: round to the nearest step (ties to even), clip to its range, uint16.

    adu : levels in converter steps, any shape.   left_justified : shift samples up to the top of the 16 bits.
    """
    samples = np.clip(np.rint(adu), 0, 2**bit_depth - 1).astype(np.uint16)
    return samples << (16 - bit_depth) if left_justified else samples


class Sensor:
    """The fixed maps of one seeded sensor, its truth, and the frames it takes.

    spec : SensorSpec. All maps are (ny, nx); levels in product ADU.

    ========================================  ==============================================================
    bias_a [ADU], bias_b [ADU/degC]           bias at 0 degC and its slope, without the session's shift
    read_noise_map [ADU]                      1 sigma without quantisation, row noise and telegraph noise
    dark_a [ADU/s], dark_b [1/degC],          rate = A t^gamma exp(B (T - spec.dark_t_ref))
    dark_gamma
    glow [ADU/s]                              amplifier glow
    full_well_map [e-]                        where the well is full, inf where it has no limit
    response, prnu, dust, illumination        relative; response = prnu x dust x defects
    flat_b [1/degC], flat_c [1/s]             relative change of the response with temperature and exposure
    hot, warm, telegraph, dead, low_qe        boolean; hot and warm, dead and low_qe do not overlap
    telegraph_step [ADU]                      between the two levels, 0 on other pixels
    ========================================  ==============================================================

    Raises ValueError where the vignetting makes the illumination negative.
    """

    def __init__(self, spec):
        self.spec = spec
        self.shape = spec.shape
        self.gain = spec.gain
        self.adu_scale = (
            2 ** (16 - spec.bit_depth) if spec.left_justified else 1
        )  # stored counts in one product ADU
        self.full_scale = 2**spec.bit_depth - 1  # highest product ADU of the converter
        s = spec
        self.bias_a = sensor_maps.patterned_map(
            s, "bias_a", s.bias_level, s.bias_row, s.bias_column, s.bias_pixel
        )
        self.bias_b = sensor_maps.patterned_map(
            s, "bias_b", s.bias_slope, s.slope_row, s.slope_column, s.slope_pixel
        )
        self.read_noise_map = sensor_maps.lognormal_map(s, "read_noise", s.read_noise, s.read_noise_spread)
        self.dark_a, self.hot, self.warm = sensor_maps.dark_a_map(s)
        coefficient = np.log(2) / s.dark_doubling
        self.dark_b = sensor_maps.normal_map(s, "dark_b", coefficient, coefficient * s.dark_b_spread)
        self.dark_gamma = sensor_maps.normal_map(s, "dark_gamma", s.dark_gamma, s.dark_gamma_spread)
        self.glow = sensor_maps.glow_map(s)
        well = s.full_well if s.full_well > 0 else np.inf
        self.full_well_map = sensor_maps.lognormal_map(s, "full_well", well, s.full_well_spread)
        self.response, self.prnu, self.dust, self.dead, self.low_qe = sensor_maps.response_maps(s)
        self.flat_b = sensor_maps.normal_map(s, "flat_b", s.flat_b, s.flat_b_spread)
        self.flat_c = sensor_maps.normal_map(s, "flat_c", s.flat_c, s.flat_c_spread)
        self.illumination = sensor_maps.illumination_map(s)
        self.vignetting_centre = sensor_maps.vignetting_centre_pixels(s)  # (x, y) [pixels]
        rows, columns, step, duty = sensor_maps.telegraph_maps(s)
        self._telegraph = rows, columns, step, duty
        self.telegraph = np.zeros(self.shape, bool)
        self.telegraph[rows, columns] = True
        self.telegraph_step = np.zeros(self.shape, np.float32)
        self.telegraph_step[rows, columns] = step
        self._light = self.response * self.illumination

    # ---- truth ----

    def session_shift(self, session):
        """Zero-level shift of a session [ADU], 0 where none is specified; ValueError beyond them."""
        shifts = self.spec.session_shifts
        if not shifts:
            return 0.0
        if not 0 <= session < len(shifts):
            raise ValueError(
                f"session: got {session}, expected 0 to {len(shifts) - 1} (session_shifts has {len(shifts)})"
            )
        return float(shifts[session])

    def true_bias(self, temperature, session=0):
        """Mean of bias frames before digitisation [ADU], (ny, nx) float64; telegraph noise has zero mean."""
        return self.bias_a + self.bias_b.astype(float) * temperature + self.session_shift(session)

    def true_dark_rate(self, temperature, exposure, state=None):
        """Mean dark signal per second of exposure, glow included [ADU/s], (ny, nx) float64.

        state : DetectorState of a later time, or None.
        Raises ValueError for an exposure that is not positive [s].
        """
        if not exposure > 0:
            raise ValueError(f"exposure: got {exposure}, expected more than 0 seconds")
        rise = self.dark_b.astype(float) * (temperature - self.spec.dark_t_ref)
        dark_a = self._dark_a_of(Scene(state=state))
        return dark_a * np.exp(self.dark_gamma * np.log(exposure) + rise) + self.glow

    def true_dark_a(self, t_min):
        """Map A [ADU/s] of the dark law around another temperature t_min; B and gamma stay, glow is apart."""
        return self.dark_a * np.exp(self.dark_b.astype(float) * (t_min - self.spec.dark_t_ref))

    def true_flat(self, temperature=None, exposure=None, state=None):
        """Pixel response x illumination, 1 for a perfect pixel on the optical axis: (ny, nx) float64.

        At flat_t_ref and flat_exposure_ref where no temperature [degC] or exposure [s] is given, so that
        true_flat() x flat_b and true_flat() x flat_c are the terms B and C of the flat model around them.
        state : DetectorState of a later time, or None.
        """
        rise = 1.0
        if temperature is not None:
            rise = rise + self.flat_b.astype(float) * (temperature - self.spec.flat_t_ref)
        if exposure is not None:
            rise = rise + self.flat_c.astype(float) * (exposure - self.spec.flat_exposure_ref)
        flat = self.response.astype(float) * self.illumination * rise
        factor = None if state is None else state.light_factor
        return flat if factor is None else flat * factor

    def true_signal(self, kind, temperature, exposure=0.0, level=None, scene=None):
        """Mean signal above bias: dark signal, dark offset, light; no full well [ADU], (ny, nx) float64."""
        level, scene = self._check(kind, exposure, level, scene)
        signal = np.zeros(self.shape)
        if exposure > 0:
            signal += self.true_dark_rate(temperature, exposure, scene.state) * exposure
        if kind != "bias":
            signal += self.spec.dark_offset
        if kind == "flat":
            light = level if scene.pattern is None else level * scene.pattern.astype(float)
            light = light if scene.light is None else light + scene.light
            signal += light * self.true_flat(temperature, exposure, scene.state)
        return signal

    def true_noise(self, kind, temperature, exposure=0.0, level=None, scene=None):
        """1 sigma of one sample in product ADU, (ny, nx) float64.

        sqrt(RN^2 + S/g + 1/12 + row noise^2 + column noise^2 + telegraph variance), S the charge signal, its shot
        noise narrowed by the brighter-fatter term; without cosmic hits and full well.
        """
        offset = 0.0 if kind == "bias" else self.spec.dark_offset
        charge = self.true_signal(kind, temperature, exposure, level, scene) - offset
        lines = self.spec.row_noise**2 + self.spec.column_noise**2
        shot = charge / self.gain * self._narrowed(charge * self.gain)
        variance = self.read_noise_map.astype(float) ** 2 + shot + 1 / 12 + lines
        rows, columns, step, duty = self._telegraph
        variance[rows, columns] += step.astype(float) ** 2 * duty * (1 - duty)
        return np.sqrt(variance)

    def measured_charge(self, charge):
        """Charge that the amplifier sees of a charge (ny, nx) [e-], full well and non-linearity applied.

        The truth of linearity: measured / charge - 1 is the deviation. Of a mean charge it gives the mean of the
        frames but near the full well, where the noise is cut on one side.
        """
        charge = np.array(np.broadcast_to(charge, self.shape), float)
        self._fill_wells(charge)
        return charge

    # ---- frames ----

    def frame(
        self, kind, temperature, exposure=0.0, rng=None, *, session=0, level=None, hits=None, scene=None
    ):
        """One frame as the camera stores it: (ny, nx) uint16.

        kind : 'bias', 'dark' or 'flat'.   temperature [degC], exposure [s] (bias: 0 or very short).
        rng : numpy Generator (each frame spawns its own streams from it), or a seed.
        session : index into session_shifts.
        level : flats only, light of a perfect pixel on the optical axis [ADU].
        hits : boolean array (ny, nx), set True where a cosmic hit left charge.
        scene : Scene, what the sensor looks at beside even light, and its state; None: nothing special.
        With the same seed, switching one random term off leaves the others as they were.
        Raises ValueError for an unknown kind or session, a negative exposure, a level or light missing or out
        of place, a scene of another shape.
        """
        level, scene = self._check(kind, exposure, level, scene)
        photon, cosmic, row, telegraph, read = np.random.default_rng(rng).spawn(5)
        charge = self._charge(temperature, exposure, level, photon, scene)
        self._add_cosmic_hits(charge, exposure, cosmic, hits, scene)
        self._fill_wells(charge)
        constant = self.session_shift(session) + (self.spec.dark_offset if kind != "bias" else 0.0)
        adu = charge
        adu *= np.float32(1 / self.gain)
        adu += self.bias_a
        adu += self.bias_b * np.float32(temperature)
        adu += np.float32(constant)
        adu += np.float32(self.spec.row_noise) * row.standard_normal((self.shape[0], 1), dtype=np.float32)
        if self.spec.column_noise > 0:
            # A child of the row's stream: a sixth child of the frame's would change all later frames.
            (column,) = row.spawn(1)
            adu += np.float32(self.spec.column_noise) * column.standard_normal(
                self.shape[1], dtype=np.float32
            )
        rows, columns, step, duty = self._telegraph
        # Around its own mean, so that the true bias of a telegraph pixel is a + b T too.
        adu[rows, columns] += step * ((telegraph.random(rows.size) < duty) - duty).astype(np.float32)
        adu += self.read_noise_map * read.standard_normal(self.shape, dtype=np.float32)
        return digitise(adu, self.spec.bit_depth, self.spec.left_justified)

    def stack(
        self, kind, temperatures, exposure=0.0, rng=None, *, session=0, level=None, hits=None, scene=None
    ):
        """Frames one after the other: (n, ny, nx) uint16.

        temperatures : (n,) [degC], one a frame, so that they can drift.   level : one number, or (n,).
        hits : boolean array (n, ny, nx) or None.   scene : one Scene, or a list of n.
        The rest, and the errors, as for ``frame``.
        """
        temperatures = np.atleast_1d(np.asarray(temperatures, float))
        rng = np.random.default_rng(rng)
        levels = [None] * temperatures.size if level is None else np.broadcast_to(level, temperatures.shape)
        scenes = scene if isinstance(scene, list | tuple) else [scene] * temperatures.size
        out = np.empty((temperatures.size, *self.shape), np.uint16)
        for i, (temperature, its_level, its_scene) in enumerate(
            zip(temperatures, levels, scenes, strict=True)
        ):
            terms = {"level": its_level, "scene": its_scene, "hits": None if hits is None else hits[i]}
            out[i] = self.frame(kind, temperature, exposure, rng, session=session, **terms)
        return out

    def to_adu(self, samples):
        """Convert stored samples to product ADU, float32."""
        return samples.astype(np.float32) / np.float32(self.adu_scale)

    # ---- parts of a frame ----

    def _check(self, kind, exposure, level, scene):
        """Level as a float and scene as a Scene, after all is found possible."""
        if kind not in KINDS:
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
        if not 0 <= exposure < np.inf:
            raise ValueError(f"exposure: got {exposure}, expected 0 or more seconds")
        scene = _NOTHING if scene is None else scene
        for name in ("pattern", "light"):
            given = getattr(scene, name)
            if given is not None and given.shape != self.shape:
                raise ValueError(f"scene.{name}: got shape {given.shape}, expected {self.shape}")
        if kind != "flat":
            if level is not None:
                raise ValueError(f"level: got {level} for a {kind} frame, expected none: only flats are lit")
            if scene.pattern is not None or scene.light is not None:
                raise ValueError(f"scene: got light for a {kind} frame, expected none: only flats are lit")
            return 0.0, scene
        if level is None or not 0 <= level < np.inf:
            raise ValueError(f"level: got {level}, expected the light of the flat [ADU], 0 or more")
        return float(level), scene

    def _dark_a_of(self, scene):
        """Map A with the change of the scene's state [ADU/s], (ny, nx) float32; it does not fall below 0."""
        change = None if scene.state is None else scene.state.dark
        return self.dark_a if change is None else np.maximum(self.dark_a + change, 0)

    def _photo_signal(self, temperature, exposure, level, scene):
        """Mean signal of the light of a flat [ADU]: (ny, nx) float32."""
        light = self._light * np.float32(level)
        if scene.pattern is not None:
            light *= scene.pattern
        if scene.light is not None:
            light += self._light * scene.light
        s = self.spec
        if s.flat_b or s.flat_b_spread or s.flat_c or s.flat_c_spread:
            rise = self.flat_b * np.float32(temperature - s.flat_t_ref)
            rise += self.flat_c * np.float32(exposure - s.flat_exposure_ref)
            light *= 1 + rise
        if scene.state is not None and scene.state.light_factor is not None:
            light *= scene.state.light_factor
        return np.maximum(light, 0, out=light)

    def _charge(self, temperature, exposure, level, rng, scene):
        """Dark and photo electrons of one frame with their shot noise: (ny, nx) float32."""
        if exposure > 0:
            # A t^(1+gamma) exp(B dT) as one exponential: the costliest line of a frame.
            power = (1 + self.dark_gamma) * np.float32(np.log(exposure))
            power += self.dark_b * np.float32(temperature - self.spec.dark_t_ref)
            mean = np.exp(power, out=power)
            mean *= self._dark_a_of(scene)
            mean += self.glow * np.float32(exposure)
        else:
            mean = np.zeros(self.shape, np.float32)
        if level > 0 or scene.light is not None:
            mean += self._photo_signal(temperature, exposure, level, scene)
        mean *= np.float32(self.gain)
        if not mean.any():
            return mean
        charge = poisson(mean, rng)
        if self.spec.brighter_fatter > 0:
            charge = mean + (charge - mean) * np.sqrt(self._narrowed(mean))
        return charge

    def _narrowed(self, charge):
        """Shot variance of a charge [e-] over the charge: filled pixels push electrons to their neighbours."""
        z = 2 * self.spec.brighter_fatter * np.maximum(charge, 1e-3)
        return -np.expm1(-z) / z if self.spec.brighter_fatter > 0 else 1.0

    def _add_cosmic_hits(self, charge, exposure, rng, hits, scene):
        """Add straight tracks of 1 to 4 pixels that share their charge equally; mark them in hits."""
        spec = self.spec
        ny, nx = self.shape
        n = rng.poisson((spec.cosmic_per_frame + spec.cosmic_rate * exposure + scene.cosmic) * ny * nx)
        if n == 0:
            return
        y, x = rng.integers(ny, size=n), rng.integers(nx, size=n)
        angle = rng.uniform(0, 2 * np.pi, n)
        length = np.minimum(rng.geometric(0.5, n), _LONGEST_TRACK)
        share = spec.cosmic_charge * np.exp(spec.cosmic_spread * rng.standard_normal(n)) / length
        for i in range(_LONGEST_TRACK):
            row = y + np.rint(i * np.sin(angle)).astype(int)
            column = x + np.rint(i * np.cos(angle)).astype(int)
            there = (length > i) & (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
            np.add.at(charge, (row[there], column[there]), share[there].astype(np.float32))
            if hits is not None:
                hits[row[there], column[there]] = True

    def _fill_wells(self, charge):
        """Limit charge to the full well, in place, and bend it: slightly below, and with the droop all along."""
        s = self.spec
        well = self.full_well_map if s.full_well_spread > 0 else np.float32(s.full_well)
        # Below a tenth of the well the bend is under 1e-7 of the signal.
        if s.full_well == 0 or (s.gain_droop == 0 and charge.max() < 0.1 * np.min(well)):
            return
        np.minimum(charge, well, out=charge)
        filled = charge / well
        bend = 1 - np.float32(s.nonlinearity) * filled**_NONLINEARITY_POWER
        if s.gain_droop > 0:
            bend -= np.float32(s.gain_droop) * filled
        charge *= bend
