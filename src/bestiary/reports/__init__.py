"""Reports: one self-contained HTML page on how a model does, for people."""
