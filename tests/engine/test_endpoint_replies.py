"""What servers send, as records, and what is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from wdct_dist.engine.endpoint_limits import Usage
from wdct_dist.engine.endpoint_replies import MalformedReply, Place, error_status, error_text, read_reply

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
    "usage",
    [None, [], "many", {}, {"prompt_tokens": "many"}, {"prompt_tokens": -1}, {"prompt_tokens": float("inf")}, {"prompt_tokens": 2**40}],
)
def test_a_usage_that_is_no_count_costs_no_reply(usage: Any) -> None:
    reply = read_reply({"choices": [{"text": "A"}], "usage": usage})
    assert (reply.text, reply.usage) == ("A", None)


@pytest.mark.parametrize(
    ("sent", "text"),
    [("A \ud83d", "A \ufffd"), ("\udc00B", "\ufffdB"), ("\ud83d\ude00 B", "\N{GRINNING FACE} B"), ("é", "é"), ("A\x00", "A\x00")],
)
def test_half_a_surrogate_pair_costs_the_character_alone(sent: str, text: str) -> None:
    reply = read_reply({"choices": [{"message": {"content": sent}, "finish_reason": sent}], "model": sent})
    assert (reply.text, reply.finish_reason, reply.model) == (text, text, text)


@pytest.mark.parametrize(
    ("message", "text", "finish_reason"),
    [
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "B"}]}, "B", "stop"),
        ({"content": [{"type": "output_text", "text": "I choose "}, {"type": "text", "text": "B"}]}, "I choose B", "stop"),
        ({"content": [{"type": "image", "url": "x"}]}, "", "stop"),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No.", "refusal"),
        ({"content": None, "refusal": "I can't help with that."}, "I can't help with that.", "refusal"),
        ({"content": "B", "refusal": None}, "B", "stop"),
        ({"content": "B", "refusal": ""}, "B", "stop"),
    ],
)
def test_parts_and_refusals_of_a_message_are_told_apart(message: dict[str, Any], text: str, finish_reason: str) -> None:
    reply = read_reply({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (reply.text, reply.finish_reason) == (text, finish_reason)


@pytest.mark.parametrize(
    ("message", "tokens", "first"),
    [
        ({"content": "B", "reasoning_content": "hm"}, ["<think>", "hm", "</think>", "B"], 3),
        ({"content": "B", "reasoning": "B"}, ["<think>", "B", "</think>", "\n\n", "B", "<|im_end|>"], 4),
        ({"content": "\n\nI say B.", "reasoning_content": "hm"}, ["hm", "\n\n", "I", " say", " B", "."], 2),
        ({"content": "<think>hm A</think>\n\nB"}, ["<think>", "hm", " A", "</think>", "\n\n", "B"], 5),
        ({"content": "<thinking>A</thinking>B"}, ["<thinking>", "A", "</thinking>", "B"], 3),
        ({"content": "B", "reasoning_content": "hm"}, ["B"], 0),
        # no place whose tokens are the visible reply: none is better than that of another token
        ({"content": "B", "reasoning_content": "hm"}, ["<think>", "hm"], None),
        ({"content": "B.", "reasoning_content": "hm"}, ["hm", "B", "!"], None),
        ({"content": None, "reasoning_content": "hm"}, ["hm"], None),
        ({"content": "<think>hm"}, ["<think>", "hm"], None),
        # nothing is hidden
        ({"content": "B"}, ["B"], 0),
        ({"content": " B"}, [" ", "B"], 0),
    ],
)
def test_logprobs_are_read_at_the_first_token_of_the_visible_reply(message: dict[str, Any], tokens: list[str], first: int | None) -> None:
    content = [{"token": token, "logprob": -0.1, "top_logprobs": [{"token": token, "logprob": -0.1}]} for token in tokens]
    reply = read_reply({"choices": [{"message": message, "logprobs": {"content": content}, "finish_reason": "stop"}]})
    assert [place.token for place in reply.places] == ([] if first is None else tokens[first:])


@pytest.mark.parametrize(
    ("message", "finish_reason", "is_cut"),
    [
        ({"content": None, "reasoning_content": "hm"}, "length", True),
        ({"content": "<think>hm"}, "length", True),
        ({"content": "", "reasoning": "hm"}, "length", True),
        ({"content": "B", "reasoning_content": "hm"}, "length", False),
        ({"content": None, "reasoning_content": "hm"}, "stop", False),
        ({"content": None}, "length", False),
    ],
)
def test_a_reply_that_ends_within_hidden_reasoning_is_known(message: dict[str, Any], finish_reason: str, is_cut: bool) -> None:
    assert read_reply({"choices": [{"message": message, "finish_reason": finish_reason}]}).is_cut_in_reasoning is is_cut


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429, "message": "Rate limit exceeded"}}, 429),
        ({"error": {"code": "429"}}, 429),
        ({"error": {"code": "rate_limit_exceeded"}}, 429),
        ({"error": {"type": "invalid_request_error"}}, 400),
        ({"error": {"code": "odd", "message": "x"}}, 500),
        ({"error": "overloaded"}, 500),
        ({"choices": [{"error": {"code": 502}, "finish_reason": "error"}]}, 502),
        ({"choices": [{"message": {"content": "A"}}], "error": None}, None),
        ({"choices": [{"message": {"content": "A"}}]}, None),
        ([], None),
    ],
)
def test_an_error_in_a_body_with_status_200_has_the_status_of_its_code(body: Any, status: int | None) -> None:
    assert error_status(body) == status


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": float("nan")}]}}]},
        {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": 3.0}]}}]},
        {"choices": [{"text": "A", "logprobs": {"tokens": ["A"], "top_logprobs": [{"A": "much"}]}}]},
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
