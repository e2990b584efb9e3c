"""Edits, and the file with them applied while it streams."""
