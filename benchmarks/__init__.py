"""Measurements of speed, memory and accuracy; nothing here is imported by the pipelines."""
