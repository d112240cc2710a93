"""Published checkpoints: which exist, where their files are, how they are read and fitted to a model."""
