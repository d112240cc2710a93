"""Loops of the ray caster, compiled by numba; serial, because data workers are forked."""

from bestiary import kernel_cache as kernel_cache
