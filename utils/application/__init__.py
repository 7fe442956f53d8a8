"""What every command shares: options, log, run record, plots, report."""
