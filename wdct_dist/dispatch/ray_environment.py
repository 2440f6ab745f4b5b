"""What Ray reads from the environment while it is imported; set before, and only where the user has not."""

from __future__ import annotations

import os
from pathlib import Path


def prepare() -> None:
    """Quiet defaults, and the token of this user's clusters where there is one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # an engine on CPUs asks for no GPU; that is no reason for Ray to warn of hiding them
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "RAY_AUTH_MODE" not in os.environ and has_token():
        # `ray start` demands the token as soon as this user has one, a driver that joins by address does not send it by itself
        # (2.60: refused after 20 s); a cluster without authentication ignores it
        os.environ["RAY_AUTH_MODE"] = "token"


def has_token() -> bool:
    """Whether this user has a token for Ray, in one of the places where Ray looks."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")).is_file()
