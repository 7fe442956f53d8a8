"""Older path of the dark pipeline; everything lives one folder up."""
