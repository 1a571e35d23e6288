"""Deprecated names of `confide.client.protocol`, for code written for version 0.1.0."""

from __future__ import annotations

import warnings

from confide.client.protocol import ApiRequest as Request
from confide.client.protocol import ConfideError
from confide.client.protocol import build_request as request
from confide.client.protocol import build_save_request as saving
from confide.client.protocol import parse_response as answer

__all__ = ["ConfideError", "Request", "answer", "request", "saving"]

warnings.warn("confide.client.calls is now confide.client.protocol.", DeprecationWarning, stacklevel=2)
