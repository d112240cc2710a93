"""Evaluators: pure functions and accumulators, each equal to the reference tool, each naming its protocol."""
