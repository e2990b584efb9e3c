"""What is wrong with a file, and which rule that breaks."""
