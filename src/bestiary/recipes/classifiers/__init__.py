"""Recipes of the classifiers, a file for each kin."""
