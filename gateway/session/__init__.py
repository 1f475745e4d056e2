"""Terminals that are logged in, and what can be asked of them. The last place that knows protocol names."""
