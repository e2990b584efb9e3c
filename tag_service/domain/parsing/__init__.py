"""Bytes to tokens."""
