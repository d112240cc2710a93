"""Files, frames and cameras to tensors and back."""
