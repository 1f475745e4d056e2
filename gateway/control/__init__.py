"""Relay commands: from a request to one proven outcome."""
