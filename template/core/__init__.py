"""What knows nothing of images and networks: errors, command line, files, processes, the run folder."""
