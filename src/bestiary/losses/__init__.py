"""Pure loss functions: unreduced unless they say otherwise; what a sum is divided by is the caller's choice."""
