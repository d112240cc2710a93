"""Readers, checking, converting, and the procedural `world`."""
