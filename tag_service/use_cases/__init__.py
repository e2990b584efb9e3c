"""What the service does with a file that arrives in chunks."""
