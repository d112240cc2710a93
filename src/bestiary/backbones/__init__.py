"""Networks that turn pictures into feature maps, one family a file."""
