"""Photon transfer, linearity and non-uniformity of a camera: measuring, results, sheet."""
