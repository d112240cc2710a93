"""Readers of predictions that any program wrote, joined to the pictures of a truth."""
