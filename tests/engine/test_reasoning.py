"""Reasoning, conversations and replies on a real small model: every variant in one batch, held against transformers in float32."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from itertools import takewhile

import pytest

from wdct_dist.config.load import load_config
from wdct_dist.config.schema import Dtype, EngineConfig, PromptConfig, PromptFormat, SamplingConfig
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.render import Renderer, rendered_digest
from wdct_dist.engine.steps import Generated, Generation
from wdct_dist.items.load import BUNDLED, read_records
from wdct_dist.prompts.build import build_prompts
from wdct_dist.prompts.types import ANSWER_SLOT, Prompt

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

LIMIT = 32
VARIANTS = {
    "direct": ("variants=[direct]",),
    "cot": ("variants=[cot]",),
    "cot-2shot": ("variants=[cot]", "cot.shots=2", "orders=as_given"),
    "cot zh": ("variants=[cot]", "data.languages=[zh]", "orders=as_given"),
    "cot-2shot zh": ("variants=[cot]", "cot.shots=2", "data.languages=[zh]", "orders=as_given"),
    "cot on deeds": ("variants=[cot]", "cot.sides=[deed]", "prompt.reply_tokens=3"),
    "cot (a)": ("variants=[cot]", "prompt.labels=['(a)','(b)']", "orders=as_given"),
    "joint": ("variants=[joint]",),
    "joint-reverse": ("variants=[joint-reverse]", "prompt.answer_prefix='My answer:'"),
    "joint (a)": ("variants=[joint]", "prompt.labels=['(a)','(b)']"),
    "paper": ("protocol=paper",),
}
"""Overrides of the configuration."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, what the engine said about it, and all that was asked on the way."""

    prompt: Prompt
    response: Response
    steps: list[tuple[Generation, Generated]]


@pytest.fixture(scope="module")
def engine(small_model):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from wdct_dist.checkpoints.types import Checkpoint
    from wdct_dist.engine.vllm_engine import start_vllm

    checkpoint = Checkpoint("small", "d" * 64, small_model, "", "LlamaForCausalLM", "s", 0, "bfloat16", 8192, True, "directory")
    settings = EngineConfig(dtype=Dtype.float32, max_model_len=2048, cpu_cache_gib=1.0, deterministic=True)
    running = start_vllm(checkpoint, settings, PromptConfig(), SamplingConfig(max_new_tokens=LIMIT), 1)
    yield running
    running.close()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Prompts of one item of two options under each of VARIANTS."""
    config = tmp_path_factory.mktemp("config") / "c.yaml"
    config.write_text("checkpoints: [demo]\nengine: {kind: scripted}\n", encoding="utf-8")
    items = [r.item for r in read_records(BUNDLED) if r.item is not None and r.item.num_options == 2 and "zh" in r.item.translations]
    return {name: list(build_prompts(items[:1], load_config(config, overrides))) for name, overrides in VARIANTS.items()}


def tapped(engine, prompts, trial=0) -> list[Case]:
    """The engine's answers, and the generations on the way to each."""
    begin, seen = engine._loaded.asker.begin, []

    def follow(steps):
        taken = []
        seen.append(taken)
        if isinstance(steps, Response):
            return steps

        def forward():
            outputs = None
            while True:
                try:
                    wanted = next(steps) if outputs is None else steps.send(outputs)
                except StopIteration as end:
                    return end.value
                outputs = yield wanted
                taken.extend(zip(wanted, outputs, strict=True))

        return forward()

    engine._loaded.asker.begin = lambda *arguments: [follow(steps) for steps in begin(*arguments)]
    try:
        responses = engine.answer(prompts, trial)
    finally:
        engine._loaded.asker.begin = begin
    return [Case(*case) for case in zip(prompts, responses, seen, strict=True)]


@pytest.fixture(scope="module")
def cases(engine, prompts):
    """All variants in one call: prompts that reason, read, converse and reply share the engine's batches."""
    every = [prompt for own in prompts.values() for prompt in own]
    answered = iter(tapped(engine, every))
    return {name: [next(answered) for _ in own] for name, own in prompts.items()}


@pytest.fixture(scope="module")
def renderer(small_model):
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(small_model), PromptFormat.auto, PromptConfig())


def every(cases, where=lambda prompt: True):
    return [case for own in cases.values() for case in own if where(case.prompt)]


def reasons(prompt):
    return prompt.mode == "reason"


def converses(prompt):
    return any(message.content == ANSWER_SLOT for message in prompt.messages)


def ids_of_digest(case):
    """The ids sent that the response's digest is of."""
    return {tuple(one.token_ids) for one, _ in case.steps if rendered_digest(one.token_ids) == case.response.rendered_digest}


def test_every_prompt_is_answered(cases):
    for case in every(cases):
        assert case.response.error is None
        assert (case.response.reasoning is not None) == reasons(case.prompt)
        assert (case.response.said is not None) == converses(case.prompt)
        assert 0 < case.response.label_mass <= 1


@pytest.mark.parametrize("name", [name for name in VARIANTS if "(a)" not in name])
def test_log_odds_are_those_of_a_float32_forward_pass_over_the_ids_sent(cases, reference, renderer, name):
    vocabulary = renderer._tokenizer.get_vocab()
    for side in ("word", "deed"):
        *_, case = (case for case in cases[name] if case.prompt.side == side)
        [sent] = ids_of_digest(case)
        assert sent == tuple(case.steps[-1][0].token_ids)
        logprobs = reference(sent)
        by_label = [math.log(sum(math.exp(float(logprobs[vocabulary[blank + label]])) for blank in ("", "Ġ"))) for label in "AB"]
        first, second = (by_label[case.prompt.permutation.index(option)] for option in (0, 1))
        assert case.response.option_logprobs[0] - case.response.option_logprobs[1] == pytest.approx(first - second, abs=1e-3)
        assert case.response.option_logprobs == pytest.approx((first, second), abs=2e-3)


@pytest.mark.parametrize("name", ["cot (a)", "joint (a)"])
def test_labels_of_several_tokens_are_read_behind_a_reasoning_and_a_conversation_too(cases, reference, renderer, name):
    [case, *_] = [case for case in cases[name] if case.prompt.side == "deed"]
    [sent] = [
        generation.token_ids for generation, _ in case.steps if rendered_digest(generation.token_ids) == case.response.rendered_digest
    ]
    by_label = []
    for letter in "ab":
        paths = [renderer._tokenizer.convert_tokens_to_ids([opening, letter, ")"]) for opening in ("(", "Ġ(")]
        values = [sum(float(reference([*sent, *path[:depth]])[token]) for depth, token in enumerate(path)) for path in paths]
        by_label.append(math.log(sum(map(math.exp, values))))
    expected = tuple(by_label[case.prompt.permutation.index(option)] for option in (0, 1))
    assert case.response.option_logprobs == pytest.approx(expected, abs=2e-3)


def test_what_is_sent_is_the_prompt_the_reasoning_and_the_cue(cases, renderer):
    for case in every(cases, reasons):
        prompt, response = case.prompt, case.response
        text = renderer.text(prompt) + response.reasoning.rstrip() + prompt.answer_cue
        assert response.rendered_digest == rendered_digest(renderer.encode([text])[0])
        assert not any(stop in response.reasoning for stop in prompt.stop)


def test_reasoning_ends_where_the_model_ends_it_or_at_the_limit(cases):
    ends = set()
    for case in every(cases, reasons):
        response, generated = case.response, case.steps[0][1]
        ends.add(response.finish_reason)
        assert response.finish_reason == generated.finish_reason
        assert (response.finish_reason == "length") == (len(generated.token_ids) == LIMIT and generated.finish_reason == "length")
        assert response.num_output_tokens == sum(len(one.token_ids) for _, one in case.steps)
        assert response.num_prompt_tokens == len(case.steps[0][0].token_ids)
    assert ends == {"stop", "length"}


def test_the_second_phase_takes_all_but_the_seam_from_the_prefix_cache(cases, engine):
    block = engine.facts.settings["block_size"]
    for case in every(cases, reasons):
        (begun, reasoning), (asked, answer) = case.steps[:2]
        before = [*begun.token_ids, *reasoning.token_ids[:-1]]  # nothing is computed for the last token, unless another follows
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, asked.token_ids[:-1], strict=False))))
        assert same >= len(begun.token_ids)
        assert answer.num_cached_tokens >= same // block * block


def test_the_answer_put_into_the_conversation_is_the_one_that_the_model_gives_alone(cases):
    alone = {case.response.rendered_digest: case for case in every(cases) if not converses(case.prompt)}
    for case in every(cases, converses):
        first = alone[rendered_digest(case.steps[0][0].token_ids)]
        assert first.prompt.variant == case.prompt.variant
        assert first.prompt.side != case.prompt.side
        most_probable = max(range(2), key=lambda place: first.response.option_logprobs[first.prompt.permutation[place]])
        assert case.response.said == case.prompt.labels[most_probable]
        assert case.response.num_output_tokens == sum(len(one.token_ids) for _, one in case.steps)


def test_the_conversation_holds_that_answer(cases, renderer):
    prefixes = {"joint": "", "joint-reverse": "My answer: ", "joint (a)": ""}
    for name, prefix in prefixes.items():
        for case in cases[name]:
            if not converses(case.prompt):
                continue
            [sent] = ids_of_digest(case)
            text = renderer._tokenizer.decode(list(sent))
            assert f"<|im_start|>assistant\n{prefix}{case.response.said}<|im_end|>\n<|im_start|>user\n" in text
            assert text.endswith(f"<|im_start|>assistant\n{prefix}".rstrip(" "))


def test_replies_of_the_paper_protocol_have_up_to_ten_tokens(cases, renderer):
    for case in cases["paper"]:
        [(asked, generated)] = case.steps
        assert case.response.text == renderer._tokenizer.decode(list(generated.token_ids), skip_special_tokens=True)
        assert case.response.num_output_tokens == len(generated.token_ids) <= asked.max_tokens == 10
        assert (case.response.finish_reason == "length") == (len(generated.token_ids) == 10)
        assert renderer.text(case.prompt).endswith("\nAnswer:<|im_end|>\n<|im_start|>assistant\n")


def test_a_reply_of_several_tokens_is_generated_behind_the_reasoning(cases):
    for case in cases["cot on deeds"]:
        reply = case.steps[-1][1].token_ids
        assert 1 < len(reply) <= 3
        assert case.response.num_output_tokens == len(reply) + (len(case.steps[0][1].token_ids) if reasons(case.prompt) else 0)
        assert reasons(case.prompt) == (case.prompt.side == "deed")


def test_values_do_not_change_while_others_reason(engine, prompts, cases):
    """Rows of vLLM's batches that read no logprobs stand beside rows that do.

    In `cases`, labels are read in the midst of what other prompts reason; here nothing else runs.
    """
    for name in ("direct", "cot", "paper"):
        for case in cases[name]:
            [alone] = engine.answer([case.prompt], 0)
            assert alone.reasoning == case.response.reasoning
            assert alone.option_logprobs == pytest.approx(case.response.option_logprobs, abs=1e-5)


def test_two_threads_at_once_give_the_same_as_one(engine, prompts, cases):
    names = ("cot", "joint-reverse", "cot zh", "paper")
    answered = {}
    threads = [threading.Thread(target=lambda name=name: answered.update({name: engine.answer(prompts[name], 0)})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        for case, response in zip(cases[name], answered[name], strict=True):
            assert (response.reasoning, response.text, response.said) == (case.response.reasoning, case.response.text, case.response.said)
            assert response.rendered_digest == case.response.rendered_digest
            assert response.option_logprobs == pytest.approx(case.response.option_logprobs, abs=1e-4)


def test_where_there_is_no_batch_invariance_the_facts_say_so(engine):
    import torch

    said = [note for note in engine.facts.notes if note.startswith("engine.deterministic has no effect")]
    on_gpu = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    assert engine.facts.settings["batch_invariant"] is on_gpu
    assert len(said) == (0 if on_gpu else 1)
