"""Boxes and categories: one system, one file."""
