"""Recipes of the dense labellers, kin by kin."""
