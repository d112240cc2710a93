"""One file a format: `recognise(root)` says why a folder is of it, or None; `read(root)` fills an `Index`."""
