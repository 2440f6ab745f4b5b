"""The key of an API: read from the environment when it is needed, and written nowhere."""

from __future__ import annotations

import os

from wdct_dist.config.schema import EndpointConfig
from wdct_dist.errors import ConfigError


def api_key(settings: EndpointConfig) -> str | None:
    """The key; None where none is wanted. Raises `ConfigError` where it is not there, or could not be sent."""
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"engine.endpoint.api_key_env: the environment has no {settings.api_key_env}; export it (on a cluster, in the environment of "
            "`ray start` too), name the variable that holds the key, or set it to null for a server that wants none."
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"engine.endpoint.api_key_env: {settings.api_key_env} holds characters that no header can carry; copy it anew.")
    return key
