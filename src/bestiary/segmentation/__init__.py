"""Systems that name the class of every pixel."""
