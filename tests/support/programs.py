"""Programs of the distribution that tests run."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, *, package: str | None = None) -> str:
    """Return the path of a program. Without it, skip the test with the command that installs it; in CI, fail."""
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"{name} is missing: apt-get install {package or name}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
