"""The endpoint engine against a real HTTP server that misbehaves: every prompt ends with an answer or an error, and none is lost."""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from wdct_dist.checkpoints.sources import endpoint_checkpoint
from wdct_dist.config.schema import EndpointApi, EndpointConfig, PromptConfig, PromptFormat, SamplingConfig
from wdct_dist.engine.endpoint_engine import EndpointEngine
from wdct_dist.engine.protocol import Stoppable, Stopped
from wdct_dist.errors import CheckpointError, ConfigError, EngineError
from wdct_dist.prompts.types import Message

KEY = "sk-test-0123456789"


@pytest.fixture
def start():
    """Starts engines at servers; all are closed at the end."""
    running = []

    def started(server, *, model="tiny", spent=None, sampling=None, prompt=None, **settings):
        settings = {"api_key_env": None, "backoff_s": 0.01, **settings}
        config = EndpointConfig(base_url=server.url, **settings)
        checkpoint = endpoint_checkpoint(model, model, None, server.url)
        engine = EndpointEngine(checkpoint, config, prompt or PromptConfig(), sampling or SamplingConfig(), spent or {})
        running.append(engine)
        return engine

    yield started
    for engine in running:
        engine.close()


@pytest.fixture
def ask(make_prompt):
    def prompts(count, first=0, **fields):
        return [
            make_prompt(f"Question {number}?\nA. Yes\nB. No", prompt_id=f"p{number}", reply_tokens=4, **fields)
            for number in range(first, first + count)
        ]

    return prompts


def questions(server):
    """How often each question was answered well."""
    return Counter(
        body["messages"][-1]["content"].split("?")[0] for body in server.answered if "Question" in body["messages"][-1]["content"]
    )


def once(condition, action):
    """Does `action` in another thread as soon as `condition` holds."""

    def wait():
        while not condition():
            time.sleep(0.01)
        action()

    threading.Thread(target=wait, daemon=True).start()


def test_every_prompt_is_answered_once_and_in_order(api, start, ask):
    with api(delay_s=0.01) as server:
        engine = start(server, concurrency=8)
        server.behaviour.holds_until = 8
        responses = engine.answer(ask(50), 2)
        assert [response.prompt_id for response in responses] == [f"p{number}" for number in range(50)]
        assert {response.trial for response in responses} == {2}
        assert all(response.error is None for response in responses)
        assert all(math.exp(max(response.option_logprobs)) < response.label_mass == pytest.approx(0.9) for response in responses)
        assert set(questions(server).values()) == {1}
        assert server.most_open == 8


def test_calls_share_the_places(api, start, ask):
    with api() as server:
        engine = start(server, concurrency=10)
        server.behaviour.holds_until = 10
        threads = [threading.Thread(target=engine.answer, args=(ask(5, first), 0)) for first in (0, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.most_open == 10


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop", "slow", "malformed", "truncated", "empty", "nan"])
def test_a_server_that_fails_in_passing_costs_no_answer(fault, api, start, ask):
    # an answer that comes too late is asked for again, rightly: time enough, and few waits for it
    slow = fault == "slow"
    with api(faults=(fault,), fault_share=0.4, most_faults=10 if slow else None, seed=1) as server:
        engine = start(server, timeout_s=5.0 if slow else 60.0, max_attempts=30)
        responses = engine.answer(ask(40), 0)
        assert [response.error for response in responses] == [None] * 40
        assert questions(server) == {f"Question {number}": 1 for number in range(40)}
        assert server.num_requests > 45


def test_where_it_fails_too_often_the_prompt_is_an_error_and_the_others_are_answered(api, start, ask):
    # far apart: several in a row would be a server that is down
    with api(faults=("500", "drop", "malformed", "429"), broken="7?", seed=2) as server:
        responses = start(server, max_attempts=2, concurrency=4).answer(ask(60), 0)
        failed = [response for response in responses if response.error is not None]
        assert [response.prompt_id for response in failed] == ["p7", "p17", "p27", "p37", "p47", "p57"]
        assert server.num_requests == 1 + 54 + 2 * 6
        assert questions(server).keys() == {f"Question {response.prompt_id[1:]}" for response in responses if response.error is None}
        for response in failed:
            assert response.error.startswith(f"no answer from {server.url} in 2 attempts; the last time: ")
            assert (response.option_logprobs, response.text) == (None, None)


def test_retry_after_is_heeded_by_all_requests(api, start, ask):
    with api(faults=("429",), fault_share=0.0, most_faults=4, retry_after="2") as server:
        engine = start(server, concurrency=4)
        server.behaviour.fault_share = 1.0
        before = server.num_requests
        responses = engine.answer(ask(8), 0)
        assert all(response.error is None for response in responses)
        times = sorted(server.times[before:])
        gap = max(later - sooner for sooner, later in itertools.pairwise(times))
        assert gap > 1
        assert server.num_requests - before == 4 + 8


def test_a_prompt_that_the_server_refuses_is_an_error_at_once_and_the_key_is_cut_out(api, start, ask, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with api(refuse="Question 3?", key=KEY) as server:
        responses = start(server, api_key_env="TEST_KEY").answer(ask(6), 0)
        assert [response.prompt_id for response in responses if response.error] == ["p3"]
        assert responses[3].error == "the server refuses this prompt (status 400: This content is refused. Key Bearer [key])."
        assert server.num_requests == 1 + 6


def test_a_reply_without_logprobs_keeps_its_text(api, start, ask):
    with api(some_logprobs=True, seed=3) as server:
        responses = start(server).answer(ask(40), 0)
        without = [response for response in responses if response.option_logprobs is None]
        assert 5 < len(without) < 35
        assert all(response.error is None and response.text and response.option_lower is None for response in without)


def test_options_that_are_not_shown_are_bounded(api, start, ask):
    with api(hidden=0.5) as server:
        responses = start(server).answer(ask(40), 0)
        bounded = [response for response in responses if response.option_logprobs is None]
        assert 5 < len(bounded) < 35
        for response in bounded:
            [hidden] = [option for option in (0, 1) if response.option_lower[option] is None]
            assert response.option_upper[hidden] == pytest.approx(math.log(4e-5))
            assert math.exp(response.option_upper[1 - hidden]) == pytest.approx(math.exp(response.option_lower[1 - hidden]) + 4e-5)


def test_a_server_that_is_down_for_good_stops_the_run_and_leaves_no_error_behind(api, start, ask):
    with api(dies_after=21) as server:
        engine = start(server, max_attempts=3, concurrency=4)
        with pytest.raises(Stopped, match=r"has not answered 5 prompts in a row, each asked 3 times \(status 503: down\)") as stopped:
            engine.answer(ask(60), 0)
        there = [response for response in stopped.value.responses if response is not None]
        assert len(stopped.value.responses) == 60
        assert len(there) == 20
        assert all(response.error is None for response in there)
        with pytest.raises(Stopped):
            engine.answer(ask(3), 0)


def test_a_server_that_wants_a_long_pause_stops_the_run(api, start, ask):
    with api(faults=("429",), retry_after="86400") as server:
        engine = start(server)
        server.behaviour.fault_share = 1.0
        with pytest.raises(Stopped, match="asks to wait for 86,400 s"):
            engine.answer(ask(4), 0)


def test_a_key_that_is_withdrawn_stops_the_run(api, start, ask, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with api(key=KEY) as server:
        engine = start(server, api_key_env="TEST_KEY")
        server.behaviour.key = "another"
        with pytest.raises(Stopped, match=r"does not accept the request \(status 401: .*\[key\]\)") as stopped:
            engine.answer(ask(4), 0)
        assert KEY not in str(stopped.value)


def test_a_budget_of_tokens_is_never_exceeded_and_what_is_done_is_kept(api, start, ask):
    with api(delay_s=0.01) as server:
        engine = start(server, concurrency=16, budget_tokens=600)
        with pytest.raises(Stopped, match=r"the budget engine\.endpoint\.budget_tokens is spent") as stopped:
            engine.answer(ask(100), 0)
        there = [response for response in stopped.value.responses if response is not None]
        used = sum(response.num_prompt_tokens + response.num_output_tokens for response in there)
        assert 400 < used <= 600
        assert sum(questions(server).values()) == len(there)


def test_what_was_spent_before_counts(api, start):
    with api() as server, pytest.raises(EngineError, match=r"engine\.endpoint\.budget_tokens is spent: raise it"):
        start(server, budget_tokens=600, spent={"engine.endpoint.budget_tokens": 590.0})


def test_requests_a_minute_are_kept(api, start, ask):
    with api() as server:
        began = time.monotonic()  # the clock of server.times
        engine = start(server, requests_per_minute=1200)  # one each 0.05 s
        engine.answer(ask(20), 0)
        assert len(server.times) == 1 + 20
        # each may come later than its turn, and none sooner
        early = [number for number, at in enumerate(server.times) if at - began < 0.05 * number - 0.001]
        assert early == []


def test_tokens_a_minute_are_kept(api, start, ask):
    with api() as server:
        engine = start(server, tokens_per_minute=6000)  # 100 a second
        began = time.monotonic()
        responses = engine.answer(ask(10), 0)
        used = sum(response.num_prompt_tokens + response.num_output_tokens for response in responses)
        assert time.monotonic() - began > (used - 30) / 100


def test_a_call_that_waits_ends_when_the_engine_is_told_to_stop(api, start, ask):
    with api(delay_s=0.05) as server:
        engine = start(server, concurrency=2)
        assert isinstance(engine, Stoppable)
        once(lambda: len(server.answered) >= 1 + 4, lambda: engine.stop("SIGTERM"))
        with pytest.raises(Stopped, match="SIGTERM") as stopped:
            engine.answer(ask(2000), 0)
        there = [response for response in stopped.value.responses if response is not None]
        assert sum(questions(server).values()) == len(there) >= 4


def test_calls_that_come_while_it_is_closed_all_end(api, start, ask):
    with api() as server:
        engine = start(server)
        ended = []

        def go_on_asking():
            try:
                while True:
                    engine.answer(ask(1), 0)
            except EngineError as error:
                ended.append(str(error))

        threads = [threading.Thread(target=go_on_asking, daemon=True) for _ in range(16)]
        for thread in threads:
            thread.start()
        once(lambda: len(server.answered) >= 50, engine.close)
        for thread in threads:
            thread.join(60)
        assert ended == ["the engine is closed."] * 16


def test_a_call_that_waits_ends_when_the_engine_is_closed(api, start, ask):
    with api() as server:
        engine = start(server)
        server.behaviour.delay_s = 120.0
        once(lambda: server.num_open == 4, engine.close)
        with pytest.raises(EngineError, match=r"the engine is closed\."):
            engine.answer(ask(4), 0)
        with pytest.raises(EngineError, match=r"the engine is closed\."):
            engine.answer(ask(1), 0)


def test_a_server_without_chat_is_asked_in_plain_text(api, start, ask):
    with api(chat=False) as server:
        engine = start(server)
        assert engine.facts.settings["api"] == "completions"
        [response] = engine.answer(ask(1), 0)
        assert server.answered[-1]["prompt"].endswith("B. No\nAnswer:")
        assert response.option_logprobs is not None
    with api() as server:
        assert start(server, prompt=PromptConfig(format=PromptFormat.plain)).facts.settings["api"] == "completions"
        assert start(server).facts.settings["api"] == "chat"


def test_reasoning_and_conversations_take_two_requests_and_count_the_tokens_of_both(api, start, make_prompt):
    with api() as server:
        engine = start(server)
        slot = (Message("user", "One?\nA. Yes\nB. No"), Message("assistant", "<|wdct:the answer to the question before|>"))
        prompts = [
            make_prompt("Why?\nA. Yes\nB. No", prompt_id="r", mode="reason", answer_cue="\nAnswer:", stop=("Answer:",)),
            make_prompt(messages=(*slot, Message("user", "Two?\nA. Yes\nB. No")), prompt_id="c"),
        ]
        reasoned, conversed = engine.answer(prompts, 0)
        assert server.num_requests == 1 + 4
        assert reasoned.reasoning.endswith("That is my answer.")
        assert conversed.said in "AB"
        by_first = {body["messages"][0]["content"][:3]: 0 for body in server.answered}
        for body in server.answered:
            by_first[body["messages"][0]["content"][:3]] += len("\n".join(m["content"] for m in body["messages"])) // 4
        assert (reasoned.num_prompt_tokens, conversed.num_prompt_tokens) == (by_first["Why"], by_first["One"])


def test_a_begun_reply_that_the_api_does_not_take_is_an_error_that_names_the_variant(api, start, make_prompt):
    with api() as server:
        begun = make_prompt(messages=(Message("user", "Which?"), Message("assistant", "I choose")))
        [response] = start(server).answer([begun], 0)
        assert response.error.startswith("the variant direct begins the model's reply ('I choose')")


@pytest.mark.parametrize(
    ("behaviour", "settings", "words"),
    [
        ({"key": "other"}, {"api_key_env": "TEST_KEY"}, ["does not accept the request (status 401", "Bearer [key]", "TEST_KEY"]),
        ({"models": ("large",)}, {}, ["does not know the model 'tiny'", "status 404", "chat/completions"]),
        ({"fields": ("logprobs",)}, {}, ["status 400: Unsupported parameter: logprobs", "engine.endpoint", "top_logprobs = 20"]),
        ({"fields": ("max_tokens",)}, {}, ["Unsupported parameter: max_tokens", "max_tokens = 1 (prompt.reply_tokens)"]),
    ],
    ids=["key", "model", "logprobs", "max_tokens"],
)
def test_what_no_prompt_could_be_asked_with_shows_at_the_start(behaviour, settings, words, api, start, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with api(**behaviour) as server:
        with pytest.raises(CheckpointError) as refused:
            start(server, **settings)
        for word in words:
            assert word in str(refused.value)
        assert KEY not in str(refused.value)


def test_settings_that_a_server_wants_otherwise_can_be_given(api, start, ask):
    with api(fields=("max_tokens", "logprobs", "temperature")) as server:
        engine = start(
            server, top_logprobs=0, max_tokens_field="max_completion_tokens", extra={"temperature": None, "reasoning_effort": "low"}
        )
        [response] = engine.answer(ask(1), 0)
        assert response.error is None
        assert server.answered[-1]["max_completion_tokens"] == 4
        assert server.answered[-1]["reasoning_effort"] == "low"
        assert engine.facts.settings["gives_logprobs"] is False


def test_a_server_that_gives_no_logprobs_is_said_to(api, start):
    with api(logprobs=False) as server:
        assert any("gives no logprobs" in note for note in start(server).facts.notes)


def test_nobody_at_the_address_is_said_with_the_address(api, start):
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        nobody = SimpleNamespace(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(EngineError, match=r"no answer from http://127\.0\.0\.1:\d+/v1 in 3 attempts.*base_url is right"):
            start(nobody)


def test_the_key_goes_into_the_header_that_the_api_wants(api, start, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with api() as server:
        start(server, api_key_env="TEST_KEY")
        assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
        start(server, api_key_env="TEST_KEY", api_key_header="api-key")
        assert server.headers[-1]["api-key"] == KEY
        assert "Authorization" not in server.headers[-1]
        start(server)
        assert "Authorization" not in server.headers[-1]


@pytest.mark.parametrize("value", ["", "  ", "schlüssel", "two\nlines"])
def test_a_key_that_is_not_there_or_cannot_be_sent_is_refused(value, api, start, monkeypatch):
    monkeypatch.setenv("TEST_KEY", value)
    with api() as server, pytest.raises(ConfigError, match="TEST_KEY"):
        start(server, api_key_env="TEST_KEY")


def test_facts_say_what_can_be_known(api, start):
    with api() as server:
        facts = start(server, api=EndpointApi.chat).facts
        assert facts.kind == "endpoint"
        assert facts.settings["base_url"] == server.url
        assert facts.settings["system_fingerprints"] == ["fp_test"]
        assert any("cannot be seen" in note for note in facts.notes)
