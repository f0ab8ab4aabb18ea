"""Errors, command line, files, processes and run folders: the layer that knows neither images nor networks."""
