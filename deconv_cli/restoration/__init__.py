"""Restoring: array to array, then files to files."""
