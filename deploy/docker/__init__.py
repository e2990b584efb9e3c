"""What goes into the container images, beside the code."""
