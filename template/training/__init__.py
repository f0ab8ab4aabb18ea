"""Training: resolved options, checks before a run exists, optimizers, feature cache."""
