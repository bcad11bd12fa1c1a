"""Making trained networks smaller and faster: pruning, quantisation, and what they cost."""
