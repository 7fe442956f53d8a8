"""Older path of the bias pipeline; everything lives one folder up."""
