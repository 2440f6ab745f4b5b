"""What servers send, as records, and what is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from wdct_dist.engine.endpoint_limits import Usage
from wdct_dist.engine.endpoint_replies import MalformedReply, Place, error_text, read_reply

TOP = [{"token": "A", "logprob": -0.1, "bytes": [65]}, {"token": " B", "logprob": -2.5}]
CHAT: dict[str, Any] = {
    "model": "m-2024",
    "system_fingerprint": "fp",
    "choices": [
        {
            "message": {"role": "assistant", "content": "A."},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": TOP}]},
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
}


def test_a_chat_completion_is_read() -> None:
    reply = read_reply(CHAT)
    assert (reply.text, reply.finish_reason, reply.fingerprint, reply.model) == ("A.", "stop", "fp", "m-2024")
    assert reply.places == (Place("A", (("A", -0.1), (" B", -2.5))),)
    assert (reply.usage, reply.num_cached_tokens) == (Usage(7, 2), 4)


def test_a_text_completion_is_read() -> None:
    body = {"choices": [{"text": " A", "logprobs": {"tokens": [" A"], "top_logprobs": [{" A": -0.1, " B": -2.5}]}}]}
    reply = read_reply(body)
    assert reply.places == (Place(" A", ((" A", -0.1), (" B", -2.5))),)
    assert (reply.text, reply.usage, reply.num_cached_tokens) == (" A", None, None)


def test_a_token_without_a_logprob_is_left_out_and_not_given_one() -> None:
    body = {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": -0.1, "B": -9999.0, "C": None}]}}]}
    assert read_reply(body).places == (Place("A", (("A", -0.1),)),)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_a_reply_without_logprobs_has_its_text(logprobs: Any) -> None:
    reply = read_reply({"choices": [{"message": {"content": "B"}, "logprobs": logprobs}]})
    assert (reply.text, reply.places) == ("B", ())


def test_a_reply_without_content_is_empty() -> None:
    assert read_reply({"choices": [{"message": {"content": None, "reasoning_content": "hm"}}]}).text == ""


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": ["A"]}}]},
        {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": float("nan")}]}}]},
        {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": 3.0}]}}]},
        {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": "much"}]}}]},
        {"choices": [{"text": "A"}], "usage": {"prompt_tokens": "many"}},
    ],
)
def test_what_is_no_completion_is_malformed(body: Any) -> None:
    with pytest.raises(MalformedReply):
        read_reply(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "Too  long.\nShorten it."}}, "Too long. Shorten it."),
        ({"error": "no"}, "no"),
        ({"detail": "Not Found"}, "Not Found"),
        (None, "<html>Bad gateway</html>"),
    ],
)
def test_what_a_server_says_of_an_error_is_one_line(body: Any, said: str) -> None:
    assert error_text(body, "<html>Bad gateway</html>") == said
