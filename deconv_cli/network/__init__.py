"""The encoder-decoder, its activations and initialisation, and the weights files."""
