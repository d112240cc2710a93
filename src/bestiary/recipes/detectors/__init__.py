"""Recipes of the detectors, kin by kin."""
