"""Bytes to meaning and back for Chinese meter protocols: no socket, clock, log or database in here."""
