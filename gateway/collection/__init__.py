"""The midnight reading: what is due, asking for it until it is there, and the nightly schedule."""
