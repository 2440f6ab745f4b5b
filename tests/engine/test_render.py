from __future__ import annotations

import pytest

from wdct_dist.config.schema import PromptConfig, PromptFormat
from wdct_dist.engine.render import Renderer, render, rendered_digest
from wdct_dist.errors import CheckpointError
from wdct_dist.prompts.types import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
DROPS_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
NO_GENERATION_PROMPT = "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}\n{% endfor %}"
THINKS = (
    CHATML.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "")
    + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QUESTION = Message("user", "Which?")
PREFIX = Message("assistant", "Answer:")


@pytest.fixture
def text_of(make_tokenizer, make_prompt):
    """The text of some messages under a template."""

    def text(template, *messages, family="byte_level", settings=None, **fields):
        renderer = Renderer(make_tokenizer(family, template), PromptFormat.auto, settings or PromptConfig())
        return renderer.render([make_prompt(messages=messages, **fields)])[0].text

    return text


def test_a_chat_prompt_ends_where_the_reply_begins(text_of):
    assert text_of(CHATML, QUESTION) == "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n"


def test_a_begun_reply_is_continued(text_of):
    assert text_of(CHATML, QUESTION, PREFIX).endswith("<|im_start|>assistant\nAnswer:")


def test_blanks_behind_a_begun_reply_are_left_to_the_next_token(text_of):
    assert text_of(CHATML, QUESTION, Message("assistant", "Answer: ")) == text_of(CHATML, QUESTION, PREFIX)
    assert text_of(CHATML, QUESTION, Message("assistant", "Answer:\n")).endswith("Answer:\n")


def test_a_begun_reply_of_blanks_alone_is_none(text_of):
    assert text_of(CHATML, QUESTION, Message("assistant", "  ")) == text_of(CHATML, QUESTION)


def test_what_the_template_writes_before_a_reply_stands_before_a_begun_one(text_of):
    assert text_of(MISTRAL, QUESTION) == "<s>[INST] Which?[/INST]"
    assert text_of(MISTRAL, QUESTION, PREFIX) == "<s>[INST] Which?[/INST] Answer:"


def test_a_template_without_a_generation_prompt_still_reaches_the_reply(text_of):
    assert text_of(NO_GENERATION_PROMPT, QUESTION) == "[user]\nWhich?\n[assistant]\n"
    assert text_of(NO_GENERATION_PROMPT, QUESTION, PREFIX) == "[user]\nWhich?\n[assistant]\nAnswer:"


def test_earlier_replies_stay_in_the_conversation(text_of):
    text = text_of(CHATML, QUESTION, Message("assistant", "A"), Message("user", "And now?"))
    assert "assistant\nA<|im_end|>" in text
    assert text.endswith("And now?<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_message_that_the_template_has_no_place_for_goes_before_the_question(text_of, template):
    assert text_of(template, Message("system", "Be brief."), QUESTION) == text_of(CHATML, Message("user", "Be brief.\n\nWhich?"))


def test_a_system_message_stays_one_where_the_template_takes_it(text_of):
    assert text_of(CHATML, Message("system", "Be brief."), QUESTION).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_thinking_is_switched_off_where_probabilities_are_read_and_left_alone_where_the_model_reasons(text_of):
    assert text_of(THINKS, QUESTION).endswith("assistant\n<think>\n\n</think>\n\n")
    assert text_of(THINKS, QUESTION, mode="reason").endswith("assistant\n")


@pytest.mark.parametrize("behind", ["<think>", "<think>\n", "<think>\n\n"])
def test_a_template_that_always_opens_thinking_has_it_closed_where_probabilities_are_read(text_of, behind):
    template = CHATML.replace("assistant\n{% endif", f"assistant\n{behind}{{% endif")
    assert text_of(template, QUESTION).endswith("assistant\n<think>\n\n</think>\n\n")
    assert text_of(template, QUESTION, PREFIX).endswith("</think>\n\nAnswer:")
    # the template engine drops the line end of an expression's last line
    assert text_of(template, QUESTION, mode="reason").endswith(f"assistant\n{behind}")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("strftime_now('%d %B %Y')", "03 February 2024"), ("date_string", "03 Feb 2024")],
)
def test_a_template_that_prints_the_date_is_given_the_configured_one(text_of, printed, expected):
    text = text_of("Today is {{ " + printed + " }}. " + CHATML, QUESTION, settings=PromptConfig(date="2024-02-03"))
    assert text.startswith(f"Today is {expected}. ")


def test_special_tokens_that_the_template_writes_are_not_doubled(make_tokenizer, make_prompt):
    tokenizer = make_tokenizer("byte_fallback", MISTRAL)
    ids = render(make_prompt(), tokenizer, PromptFormat.auto, PromptConfig()).token_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_a_base_model_is_asked_in_plain_text(text_of):
    assert text_of(None, Message("system", "Be brief."), QUESTION) == "Be brief.\n\nWhich?\nAnswer:"


def test_a_plain_prompt_takes_the_begun_reply_instead_of_the_cue(text_of):
    assert text_of(None, QUESTION, Message("assistant", "My choice is ")) == "Which?\nMy choice is"


def test_earlier_replies_of_a_plain_prompt_stand_behind_the_cue(text_of):
    text = text_of(None, QUESTION, Message("assistant", "A"), Message("user", "And now?"))
    assert text == "Which?\nAnswer: A\n\nAnd now?\nAnswer:"


def test_a_plain_prompt_may_have_a_cue_of_its_own(text_of):
    turns = (QUESTION, Message("assistant", "A"), Message("user", "And now?"))
    assert text_of(None, QUESTION, plain_cue="Belief:") == "Which?\nBelief:"
    assert text_of(None, *turns, plain_cue="答案：") == "Which?\n答案： A\n\nAnd now?\n答案："
    assert text_of(None, QUESTION, Message("assistant", "I say"), plain_cue="Belief:") == "Which?\nI say"
    assert text_of(CHATML, QUESTION, plain_cue="Belief:") == text_of(CHATML, QUESTION)


def test_a_plain_prompt_whose_text_has_begun_the_reply_gets_no_cue_and_no_line_end(text_of):
    asked = Message("user", "Which?\nAnswer:")
    assert text_of(None, asked, plain_cue="") == "Which?\nAnswer:"
    assert text_of(None, asked, Message("assistant", "A"), asked, plain_cue="") == "Which?\nAnswer:\nA\n\nWhich?\nAnswer:"
    assert text_of(None, asked, Message("assistant", "I say"), plain_cue="") == "Which?\nAnswer:\nI say"


def test_plain_can_be_chosen_for_a_chat_model(make_tokenizer, make_prompt):
    rendered = render(make_prompt("Which?"), make_tokenizer("byte_level", CHATML), PromptFormat.plain, PromptConfig())
    assert rendered.text == "Which?\nAnswer:"


@pytest.mark.parametrize(("family", "opening"), [("byte_fallback", ["<s>"]), ("unigram", []), ("wordpiece", ["[CLS]"])])
def test_plain_prompts_open_as_the_tokenizer_opens_texts_and_are_not_closed(make_tokenizer, make_prompt, family, opening):
    tokenizer = make_tokenizer(family)
    ids = list(render(make_prompt("Which?"), tokenizer, PromptFormat.auto, PromptConfig()).token_ids)
    bare = tokenizer("Which?\nAnswer:", add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.convert_tokens_to_ids(opening) + bare


def test_a_beginning_of_sequence_in_the_text_is_not_doubled(make_tokenizer, make_prompt):
    tokenizer = make_tokenizer("byte_fallback")
    rendered = render(make_prompt("<s>Which?"), tokenizer, PromptFormat.plain, PromptConfig())
    assert rendered.token_ids.count(tokenizer.bos_token_id) == 1


def test_truncation_and_padding_of_the_tokenizer_file_are_ignored(make_tokenizer, make_prompt):
    tokenizer = make_tokenizer("byte_level")
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    short, long = Renderer(tokenizer, PromptFormat.auto, PromptConfig()).render([make_prompt("I?"), make_prompt("word " * 50)])
    assert len(short.token_ids) == len("I?\nAnswer:")
    assert len(long.token_ids) > 200


def test_a_batch_renders_as_its_prompts_do_alone(make_tokenizer, make_prompt):
    renderer = Renderer(make_tokenizer("byte_fallback", CHATML), PromptFormat.auto, PromptConfig())
    prompts = [make_prompt("word " * length) for length in (1, 30, 3)]
    assert renderer.render(prompts) == [renderer.render([prompt])[0] for prompt in prompts]


def test_chat_without_a_template_is_refused(make_tokenizer):
    with pytest.raises(CheckpointError, match=r"the byte_level tokenizer has no chat template; use prompt\.format: plain"):
        Renderer(make_tokenizer("byte_level"), PromptFormat.chat, PromptConfig())


def test_a_broken_template_is_refused_at_once(make_tokenizer):
    with pytest.raises(CheckpointError, match=r"the byte_level tokenizer does not work \(.*nothing.*\); mend it"):
        Renderer(make_tokenizer("byte_level", "{{ nothing.at.all }}"), PromptFormat.auto, PromptConfig())


def test_a_template_that_loses_the_question_is_refused(make_tokenizer):
    with pytest.raises(CheckpointError, match="leaves out the user's message"):
        Renderer(make_tokenizer("byte_level", "Hello!"), PromptFormat.auto, PromptConfig())


def test_a_prompt_that_the_template_refuses_says_why(make_tokenizer, make_prompt):
    template = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + CHATML
    renderer = Renderer(make_tokenizer("byte_level", template), PromptFormat.auto, PromptConfig())
    turns = (QUESTION, Message("assistant", "A"), QUESTION)
    with pytest.raises(CheckpointError, match=r"refuses this prompt \(one turn only\)"):
        renderer.render([make_prompt(messages=turns)])


def test_a_prompt_that_is_no_text_is_refused(make_tokenizer, make_prompt):
    with pytest.raises(CheckpointError, match="the byte_level tokenizer cannot encode this prompt"):
        render(make_prompt("half a pair: \ud83d"), make_tokenizer("byte_level"), PromptFormat.auto, PromptConfig())


def test_the_digest_is_the_same_everywhere_and_knows_every_token():
    assert rendered_digest((1, 2, 300000)) == "b6688c993161fde6648e"
    assert len({rendered_digest(ids) for ids in [(), (0,), (0, 0), (1, 2), (2, 1), (12,)]}) == 6
