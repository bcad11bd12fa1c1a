"""Scoring folders, and measuring weights by the protocols of the papers."""
