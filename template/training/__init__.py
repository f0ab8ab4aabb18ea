"""Training: options resolved, checks before a run exists, optimizers, the cache of features."""
