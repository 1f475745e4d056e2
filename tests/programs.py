"""Programs from Debian that some tests need and only root can install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def program(name: str, package: str) -> Path:
    """Where the program is. Without it the test is skipped, and under CI=true it fails: there it must be."""
    everywhere = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])  # not everybody's path
    if found := shutil.which(name, path=everywhere):
        return Path(found)
    reason = f"{name} is not installed (Debian package {package})"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI may not do without it")
    pytest.skip(reason)
