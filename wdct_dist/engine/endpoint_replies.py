"""What an OpenAI-compatible server sends back, read into records. Pure; everything that is not as it should be is an error here."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wdct_dist.engine.endpoint_limits import Usage
from wdct_dist.engine.thinking import NAMED, THINK, scan
from wdct_dist.text import replace_surrogates

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


REFUSED = "refusal"
"""The finish reason of a reply that the server marks as a refusal (`message.refusal`)."""

MOST_TOKENS = 2**31 - 1
"""More tokens than any reply has; what a server states beyond that is not a count."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One completion."""

    text: str
    finish_reason: str | None
    places: tuple[Place, ...]
    """The tokens of the visible reply; empty if the server gives no logprobs, or if they cannot be told from hidden reasoning."""
    usage: Usage | None
    """None if the server does not say."""
    num_cached_tokens: int | None
    fingerprint: str | None
    """`system_fingerprint`: the server's own name for what answered."""
    model: str | None
    is_cut_in_reasoning: bool = False
    """The token limit was reached within hidden reasoning, before the visible reply began."""


def read_reply(body: Any) -> Reply:
    """From the JSON of a chat completion or a text completion. Raises `MalformedReply`."""
    try:
        choice = body["choices"][0]
        chat = "message" in choice
        message = choice["message"] if chat else choice
        text, refusal = _content(message["content"]) if chat else (message["text"], None)
        if not isinstance(text, str | None):
            raise MalformedReply("its text is no text")
        text = replace_surrogates(text or "")
        refusal = refusal or (message.get("refusal") if chat else None)
        is_hidden = (chat and any(message.get(name) for name in HIDDEN)) or _has_thinking_part(message.get("content"))
        finish_reason = REFUSED if refusal else choice.get("finish_reason")
        places = (_chat_places if chat else _completion_places)(choice.get("logprobs"))
        spoken, is_open = _spoken(text)
        if is_hidden or spoken != text:
            places = visible_places(places, spoken)
        is_cut = finish_reason == "length" and not spoken.strip() and (is_hidden or is_open)
        usage, cached = _usage(body.get("usage"))
    except MalformedReply:
        raise
    except Exception as error:  # whatever a server can make of a JSON value
        raise MalformedReply(f"it is no completion ({type(error).__name__}: {str(error)[:80]})") from None
    return Reply(
        text or (replace_surrogates(str(refusal)) if refusal else ""),
        _name(finish_reason),
        places,
        usage,
        cached,
        _name(body.get("system_fingerprint")),
        _name(body.get("model")),
        is_cut,
    )


HIDDEN = ("reasoning_content", "reasoning")
"""Fields of a message in which servers put hidden reasoning."""


def _name(value: Any) -> str | None:
    return None if value is None else replace_surrogates(str(value))


def _content(content: Any) -> tuple[Any, str | None]:
    """Return the text of a message's content and a refusal in it. A list of parts is joined: the parts of type text alone."""
    if not isinstance(content, list):
        return content, None
    parts = [part if isinstance(part, Mapping) else {"type": "text", "text": part} for part in content]
    texts = [part.get("text") for part in parts if part.get("type") in ("text", "output_text")]
    refusals = [part.get("refusal") or part.get("text") for part in parts if part.get("type") == "refusal"]
    return "".join(text for text in texts if isinstance(text, str)), next((str(text) for text in refusals if text), None)


def _has_thinking_part(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(part, Mapping) and part.get("type") in THINKING_PARTS for part in content)


THINKING_PARTS = ("thinking", "redacted_thinking", "reasoning")


def _spoken(text: str) -> tuple[str, bool]:
    """Return the text behind the last thinking block, and whether a block is left open."""
    if not text.lstrip().startswith(tuple(tags.opening for tags in (THINK, *NAMED))):
        return text, False
    scanned = scan(text, (THINK, *NAMED))
    if scanned.open is not None:
        return "", True
    return (text[slice(*scanned.spoken[-1])] if scanned.spoken else ""), False


def visible_places(places: Sequence[Place], spoken: str) -> tuple[Place, ...]:
    """Return the places of the visible reply, from its first token that is not blank; none if they cannot be found.

    Servers give logprobs for hidden reasoning too, in front of those of the reply. The reply's are the last ones whose tokens, put
    together, begin with `spoken`; a few characters may follow it (an end-of-turn token).
    """
    wanted = spoken.strip()
    if not wanted:
        return ()
    tail = ""
    for start in range(len(places) - 1, -1, -1):
        tail = places[start].token + tail
        if len(tail.strip()) > len(wanted) + LONGEST_END:
            break
        if places[start].token.strip() and tail.strip().startswith(wanted):
            return tuple(places[start:])
    return ()


LONGEST_END = 24
"""Characters of a special token that may end a reply, such as `<|end_of_text|>`."""


def _chat_places(logprobs: Any) -> tuple[Place, ...]:
    content = (logprobs or {}).get("content") or ()
    return tuple(
        Place(replace_surrogates(str(one["token"])), _given((str(top["token"]), top["logprob"]) for top in one.get("top_logprobs") or ()))
        for one in content
    )


def _completion_places(logprobs: Any) -> tuple[Place, ...]:
    tokens = (logprobs or {}).get("tokens") or ()
    tops = (logprobs or {}).get("top_logprobs") or ()
    return tuple(Place(replace_surrogates(str(token)), _given((top or {}).items())) for token, top in zip(tokens, tops, strict=False))


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
    """Return the tokens that the server counted, and those of them from its cache; None for what is no count."""
    if not isinstance(usage, Mapping) or (asked := _count(usage.get("prompt_tokens"))) is None:
        return None, None
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return Usage(asked, _count(usage.get("completion_tokens")) or 0), cached


def _count(value: Any) -> int | None:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = int(value)
        return number if 0 <= number <= MOST_TOKENS else None
    return None


STATUS_BY_NAME = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
}
"""HTTP statuses for the error codes that are words."""

FILTERED = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
"""Codes of an error that stands for a reply which the server's content filter keeps back."""


def error_status(body: Any) -> int | None:
    """Return the HTTP status that an error in the body of a response with status 200 stands for; None if there is no error.

    An error whose code says nothing counts as a server error, which is tried again.
    """
    if not isinstance(body, Mapping):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    error = body.get("error") if not choices else first.get("error") if isinstance(first, Mapping) else None
    if not error:
        return None
    codes = [error.get(name) for name in ("code", "status", "type")] if isinstance(error, Mapping) else []
    for code in codes:
        status = STATUS_BY_NAME.get(str(code)) or _count(code)
        if status is not None and 400 <= status < 600:
            return status
    return 500


def is_filtered(body: Any) -> bool:
    """Return whether an error says that the content filter keeps the reply back."""
    error = body.get("error") if isinstance(body, Mapping) else None
    return isinstance(error, Mapping) and any(error.get(name) in FILTERED for name in ("code", "type"))


def error_text(body: Any, raw: str) -> str:
    """What a server says about an error, in one line."""
    said = body.get("error", body) if isinstance(body, Mapping) else raw
    if isinstance(body, Mapping) and "error" not in body and isinstance(body.get("choices"), list) and body["choices"]:
        said = body["choices"][0].get("error", body)
    if isinstance(said, Mapping):
        said = said.get("message") or said.get("detail") or said
    return " ".join(replace_surrogates(str(said)).split())[:400] or "no reason given"
