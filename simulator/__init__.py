"""A district of meters and terminals grown from a seed, with its truth: what the head-end is tried on."""
