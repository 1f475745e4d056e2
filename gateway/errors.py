"""Errors that reach a person: each message says what, where, and what to do."""

from __future__ import annotations


class LingdianError(Exception):
    """Root. The message is shown to an operator as it stands."""


class ConfigurationError(LingdianError):
    """A setting is wrong; the message names its key."""


class InputError(LingdianError):
    """A file or argument is wrong; the message names the line or the argument."""


class StorageError(LingdianError):
    """The database cannot do what was asked; the message says whether trying again may help."""


class LinkClosed(LingdianError):
    """The link to a peer has ended; nothing more can be read from it or written to it."""
