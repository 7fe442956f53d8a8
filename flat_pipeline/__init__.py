"""Flat pipeline: master flats at the photon limit, illumination and pixel response apart, a model of every pixel."""
