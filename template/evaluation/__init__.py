"""Scores, calibration, plots and the report."""
