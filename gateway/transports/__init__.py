"""Ways to a peer: each gives a `Link`. What the bytes mean is not known here."""
