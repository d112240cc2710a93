"""Features made by hand: local descriptors, visual words, and what is found with them."""
