"""Validity of products: derived from what their headers tell, asked of frames."""

import math

from utils.fits_io.validity import Validity, validity_cards


def values(cards):
    return {key: value for key, (value, _) in validity_cards(cards).items()}


def test_a_model_holds_for_its_fitted_range_and_a_year_around():
    cards = {
        "T_MIN": (-20.0, ""),
        "T_MAX": 10.0,
        "TTOL": 0.5,
        "TEMP": -5.0,
        "CALTYPE": "BIAS",
        "EXPTIME": 0.0,
    }
    cards |= {"DATE-BEG": ("2024-01-02T03:04:05.678", ""), "DATE-END": "2024-03-01T00:00:00.000"}
    found = values(cards)
    assert found == {
        "VALTMIN": -20.5,
        "VALTMAX": 10.5,
        "VALDBEG": "2023-01-02T03:04:05",
        "VALDEND": "2025-03-01T00:00:00",
    }
    holds = Validity.of(found)
    assert holds.outside(0.0, 1e6, "2024-06-01T00:00:00") == []
    assert holds.outside(11.0, 5.0, "2026-01-01") == [
        "temperature 11 degC outside -20.5 to 10.5 degC",
        "date 2026-01-01 outside 2023-01-02 to 2025-03-01",
    ]


def test_a_dark_holds_for_its_exposure():
    found = values({"CALTYPE": ("DARK", ""), "TEMP": 5.0, "EXPTIME": 100.0})
    assert found == {"VALTMIN": 5.0, "VALTMAX": 5.0, "VALEMIN": 99.0, "VALEMAX": 101.0}
    assert Validity.of(found).outside(exposure=120.0) == ["exposure 120 s outside 99 to 101 s"]
    other = values({"CALTYPE": ("DARK", ""), "TEMP": 5.0, "EXPTIME": 10.0})
    assert Validity.of(found).apart(Validity.of(other)) == ["exposure 99 to 101 against 9.9 to 10.1"]


def test_nothing_known_sets_no_limit():
    assert validity_cards({}) == {}
    assert Validity.of({}).outside(-100.0, 1e9, "1999-01-01") == []
    assert Validity.of({"VALTMIN": True}).temperature == (-math.inf, math.inf)


def test_what_the_maker_says_stands():
    assert "VALTMIN" not in validity_cards({"TEMP": 1.0, "VALTMIN": -3.0})
