"""What an OpenAI-compatible server sends back, read into records. Pure; everything that is not as it should be is an error here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wdct_dist.engine.endpoint_limits import Usage

NOT_GIVEN = -9999.0
"""What servers write where they have no logprob: JSON has no minus infinity."""


class MalformedReply(ValueError):
    """The server's answer is not what the API promises."""


@dataclass(frozen=True, slots=True)
class Place:
    """One generated token, and the logprobs of the most probable ones at its place."""

    token: str
    top: tuple[tuple[str, float], ...]
    """(token's text, natural log), as the server gave them; those without a logprob are left out."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One completion."""

    text: str
    finish_reason: str | None
    places: tuple[Place, ...]
    """One a generated token; empty where the server gives no logprobs."""
    usage: Usage | None
    """None where the server does not say."""
    num_cached_tokens: int | None
    fingerprint: str | None
    """`system_fingerprint`: the server's own name for what answered."""
    model: str | None


def read_reply(body: Any) -> Reply:
    """From the JSON of a chat completion or a text completion. Raises `MalformedReply`."""
    try:
        choice = body["choices"][0]
        chat = "message" in choice
        said = choice["message"]["content"] if chat else choice["text"]
        if not isinstance(said, str | None):
            raise MalformedReply("its text is no text")
        places = (_chat_places if chat else _completion_places)(choice.get("logprobs"))
        usage, cached = _usage(body.get("usage"))
    except MalformedReply:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise MalformedReply(f"it is no completion ({type(error).__name__}: {str(error)[:80]})") from None
    finish_reason, fingerprint, model = choice.get("finish_reason"), body.get("system_fingerprint"), body.get("model")
    return Reply(
        said or "",
        None if finish_reason is None else str(finish_reason),
        places,
        usage,
        cached,
        None if fingerprint is None else str(fingerprint),
        None if model is None else str(model),
    )


def _chat_places(logprobs: Any) -> tuple[Place, ...]:
    content = (logprobs or {}).get("content") or ()
    return tuple(
        Place(str(one["token"]), _given((str(top["token"]), top["logprob"]) for top in one.get("top_logprobs") or ())) for one in content
    )


def _completion_places(logprobs: Any) -> tuple[Place, ...]:
    tokens = (logprobs or {}).get("tokens") or ()
    tops = (logprobs or {}).get("top_logprobs") or ()
    return tuple(Place(str(token), _given((top or {}).items())) for token, top in zip(tokens, tops, strict=False))


def _given(pairs: Any) -> tuple[tuple[str, float], ...]:
    found = []
    for token, value in pairs:
        logprob = float(value) if value is not None else -math.inf
        if math.isnan(logprob) or logprob > 0.01:
            raise MalformedReply(f"the logprob {value!r} of the token {token!r} is none")
        if logprob > NOT_GIVEN:
            found.append((str(token), min(0.0, logprob)))
    return tuple(found)


def _usage(usage: Any) -> tuple[Usage | None, int | None]:
    if not isinstance(usage, Mapping) or usage.get("prompt_tokens") is None:
        return None, None
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    return Usage(int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)), None if cached is None else int(cached)


def error_text(body: Any, raw: str) -> str:
    """What a server says about an error, in one line."""
    said = body.get("error", body) if isinstance(body, Mapping) else raw
    if isinstance(said, Mapping):
        said = said.get("message") or said.get("detail") or said
    return " ".join(str(said).split())[:400] or "no reason given"
