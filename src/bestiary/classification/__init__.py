"""Classifiers that are no single network: one system a file."""
