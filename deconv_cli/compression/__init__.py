"""Making trained networks smaller and faster: pruning, quantization, and what they cost."""
