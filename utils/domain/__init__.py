"""Calibration objects made of kernels and files: masters, bias model."""
