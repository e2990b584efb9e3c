"""Tokens to attributes: the 20, chosen ones, all as DICOM JSON."""
