"""The study of what activation functions do to a deconvolutional network, and its report."""
