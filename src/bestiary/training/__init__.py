"""The loop and its parts: settings, optimisers, schedules, averaging, checkpoints, logs; no model and no reader."""
