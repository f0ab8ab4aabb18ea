"""Finished networks for other programs."""
