"""Compiled loops of the evaluators: serial, without the interpreter lock, so that plain threads may share the work."""

from bestiary import kernel_cache as kernel_cache
