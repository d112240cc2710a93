"""Loops of the ray caster, compiled by numba; serial, because data workers are forked."""
