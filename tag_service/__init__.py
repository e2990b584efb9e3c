"""Parses, checks and edits DICOM files that arrive as streams. Stateless."""
