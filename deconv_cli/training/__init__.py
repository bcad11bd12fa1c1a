"""Training: pictures to patches to weights."""
