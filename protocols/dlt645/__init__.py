"""DL/T 645-2007 (and reading of 1997) meter protocol: frame, stream, items, messages, connection."""
