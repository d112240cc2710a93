"""Boxes that may hold an object of any kind."""
