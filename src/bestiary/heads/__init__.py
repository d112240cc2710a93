"""What turns features into answers, shared by the systems that need it."""
