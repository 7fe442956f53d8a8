"""Plans that ``utils.simulate_campaign --plan NAME`` knows: the demo, all kinds of flats, a mission in epochs."""

DEMO = {
    "sessions": [0, 3],
    "bias": [
        {"session": 0, "temperatures": [-15, -10, -5, 0, 5], "frames": 20, "drift": 0.15},
        {"session": 1, "temperatures": [-5, 0, 5, 10, 15], "frames": 20, "drift": -0.1},
    ],
    "darks": [
        {"session": 1, "temperatures": [-5, 5, 15], "exposures": [1, 10, 60], "frames": 8, "drift": 0.1},
        {
            **{"session": 1, "temperatures": [10], "exposures": [10], "frames": 16, "drift": 1.2},
            "tree": "ContinuousFrames",
        },
    ],
    "flats": [
        {"session": 1, "temperatures": [-5, 5, 15], "exposures": [1, 2], "frames": 8, "flux": 0.3},
        {
            **{"session": 1, "temperatures": [-5, 5, 15], "exposures": [1, 4], "frames": 8},
            **{"flux": 0.15, "filter": "UV", "light_drift": 0.02},
        },
    ],
}

# Laboratory, sky and satellite flats of one filter, and flats with too much and too little light.
FLATS = {
    "bias": [{"temperatures": [0, 10], "frames": 15}],
    "darks": [{"temperatures": [5], "exposures": [2, 20], "frames": 10}],
    "flats": [
        {"temperatures": [5], "exposures": [2], "frames": 10, "flux": 0.3},
        {"temperatures": [5], "exposures": [5], "frames": 3, "flux": 0.5},
        {"temperatures": [5], "exposures": [0.01], "frames": 3, "flux": 0.3},
        {
            **{"temperatures": [5], "exposures": [20], "frames": 12, "flux": 0.015, "type": "sky"},
            **{"light_drift": 0.6, "light_scatter": 0.05},
        },
        {
            **{"temperatures": [5], "exposures": [2], "frames": 10, "flux": 0.3, "type": "satellite"},
            **{"light_drift": 0.04, "cosmic": 1e-4},
        },
    ],
}

_ALL = [0, 1, 2, 3, 4, 5]

# Six visits in ten weeks; the second is on a warm day. Dust, a film, damage and hot pixels come one after the other.
EPOCHS = {
    "camera": {"session_shifts": [0.0, 0.4, -0.3, 0.5, 0.2, -0.1]},
    "sessions": [0, 12, 25, 40, 55, 70],
    "lamp": [1.0, 0.98, 1.01, 0.97, 0.95, 0.96],
    "temperature_swing": [0.0, 1.8, -0.2, 0.1, -0.1, 0.2],
    "bias": [{"session": _ALL, "temperatures": [0, 10, 20], "frames": 6}],
    "darks": [{"session": _ALL, "temperatures": [10, 20], "exposures": [2, 30], "frames": 4}],
    "flats": [
        {"session": _ALL, "temperatures": [10, 20], "exposures": [2], "frames": 4, "flux": 0.3},
        {"session": _ALL, "temperatures": [20], "exposures": [4], "frames": 3, "flux": 0.15, "filter": "UV"},
    ],
    "changes": [
        {"kind": "dust", "day": 20, "x": 0.3, "y": 0.65, "radius": 0.03, "depth": 0.05},
        {"kind": "dust", "day": 50, "x": 0.7, "y": 0.25, "radius": 0.015, "depth": 0.08, "form": "spot"},
        {"kind": "film", "days": [5, 70], "depths": [0, 0.04]},
        {"kind": "film", "days": [35, 70], "depths": [0, 0.03], "profile": "patches"},
        {"kind": "damage", "day": 35, "count": 30, "drop": 0.3},
        {"kind": "hot_pixels", "day": 20, "count": 60, "rate": 8.0, "anneal_day": 60, "annealed": 0.5},
    ],
}

NAMED_PLANS = {"demo": DEMO, "flats": FLATS, "epochs": EPOCHS}
