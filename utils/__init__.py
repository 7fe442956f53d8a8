"""What the pipelines share, in layers; a lower one never imports a higher one.

================  ==================================================================================
kernels           numpy and scipy only: arrays in, arrays out; no files, no logging
fits_io           files: atomic writes, keywords, header scan, row blocks, products, capture logs
domain            calibration objects made of both: masters, bias model
application       options, run record, log, plots, report, the frame of every command
raw_to_fits.py, observation_manager.py, simulate_campaign.py     commands and public modules on top
================  ==================================================================================

Nothing is imported here, so that ``python -m utils.NAME`` starts at once.
"""
