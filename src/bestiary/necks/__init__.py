"""What stands between a backbone and its heads."""
