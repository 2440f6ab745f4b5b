"""The engine on a real but made-up model that says what we need to hear: thinking, stop strings within it, nothing, no end.

Its next token depends on the last one alone (embeddings and output layer, with attention and MLP at zero), so that a prompt's last word
chooses what it says.
"""

from __future__ import annotations

import itertools
import math

import pytest

from wdct_dist.config.schema import Dtype, EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.engine.render import rendered_digest
from wdct_dist.prompts.types import Message

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

SAYINGS = [
    ["THINK:", "<think>", " maybe", " Answer:", " wait", "</think>", " so", " Final-Answer:", " whatever"],
    ["PLAIN:", " I", " hold", " it", " Final-Answer:"],
    ["AGAIN:", " well", "<think>"],
    ["AT-ONCE:", "Answer:"],
    ["NOTHING:", "<end>"],
    ["ENDLESS:", " la", " la"],
]
LABELS = ["A", " A", "B", " B"]
HIDDEN = 64
LIMIT = 12


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A directory with the model and its tokenizer, in the form of any other checkpoint."""
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pytest.importorskip("vllm", reason="vLLM is not installed")
    words = ["<unk>", "<end>", "\n", "Final-", *LABELS, *dict.fromkeys(word for saying in SAYINGS for word in saying)]
    vocab = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n| ?[^\s<]+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<end>", special=True)])
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    folder = tmp_path_factory.mktemp("sayings")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>").save_pretrained(folder)

    config = LlamaConfig(
        vocab_size=HIDDEN,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=512,
        eos_token_id=vocab["<end>"],
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
        model.model.embed_tokens.weight.copy_(torch.eye(HIDDEN))
        for saying in SAYINGS:
            for word, following in itertools.pairwise(saying):
                model.lm_head.weight[vocab[following], vocab[word]] = 3.0
        for weight, label in enumerate(LABELS):
            model.lm_head.weight[vocab[label], vocab["Answer:"]] = 0.4 + weight / 10
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(model_dir):
    from wdct_dist.checkpoints.types import Checkpoint
    from wdct_dist.engine.vllm_engine import start_vllm

    checkpoint = Checkpoint("sayings", "d" * 64, model_dir, "", "LlamaForCausalLM", "s", 0, "float32", 512, False, "directory")
    settings = EngineConfig(dtype=Dtype.float32, max_model_len=96, cpu_cache_gib=0.1)
    running = start_vllm(checkpoint, settings, PromptConfig(), SamplingConfig(max_new_tokens=LIMIT), 1)
    yield running
    running.close()


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture
def ask(engine, make_prompt):
    """What the engine answers where the prompt ends in some word."""

    def asked(word, *, question="so I", stop=("Answer:",), **fields):
        prompt = make_prompt(question, mode="reason", plain_cue=word, answer_cue="\nAnswer:", stop=stop, **fields)
        [response] = engine.answer([prompt], 0)
        assert response.error is None
        return response

    return asked


def digest(tokenizer, text):
    return rendered_digest(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_stop_string_ends_the_reasoning_and_is_no_part_of_it(ask, tokenizer):
    response = ask("PLAIN:")
    assert (response.reasoning, response.finish_reason) == (" I hold it Final-", "stop")
    assert response.rendered_digest == digest(tokenizer, "so I\nPLAIN: I hold it Final-\nAnswer:")
    assert response.num_output_tokens == 4 + 1


def test_a_stop_string_within_thinking_does_not_end_the_reasoning(ask, tokenizer):
    response = ask("THINK:")
    assert (response.reasoning, response.finish_reason) == ("<think> maybe Answer: wait</think> so Final-", "stop")
    assert response.rendered_digest == digest(tokenizer, f"so I\nTHINK:{response.reasoning}\nAnswer:")
    assert response.num_output_tokens == 7 + 1
    assert response.text == " B"


@pytest.mark.parametrize(("begun", "more"), [("<think>", " maybe"), ("<think> maybe", "")])
def test_thinking_that_the_prompt_opens_is_thinking(ask, tokenizer, begun, more):
    response = ask("PLAIN:", messages=(Message("user", "so I"), Message("assistant", begun)))
    assert (response.reasoning, response.finish_reason) == (f"{more} Answer: wait</think> so Final-", "stop")
    assert response.rendered_digest == digest(tokenizer, f"so I\n{begun}{response.reasoning}\nAnswer:")


def test_thinking_that_the_limit_cuts_is_closed_scored_and_flagged(ask, tokenizer):
    response = ask("PLAIN:", messages=(Message("user", "so I"), Message("assistant", "<think> la")))
    assert (response.reasoning, response.finish_reason) == (" la" * LIMIT, "length")
    assert response.rendered_digest == digest(tokenizer, "so I\n<think> la" + " la" * LIMIT + "\n</think>\n\nAnswer:")
    assert response.label_mass == pytest.approx(ask("PLAIN:").label_mass)


def test_thinking_may_come_after_other_words(ask):
    assert ask("AGAIN:").reasoning == " well<think> maybe Answer: wait</think> so Final-"


def test_a_reply_that_begins_with_the_cue_has_an_empty_reasoning(ask, tokenizer):
    response = ask("AT-ONCE:")
    assert (response.reasoning, response.finish_reason) == ("", "stop")
    assert response.rendered_digest == digest(tokenizer, "so I\nAT-ONCE:\nAnswer:")


def test_an_end_token_is_no_part_of_the_reasoning_nor_of_what_is_sent(ask, tokenizer):
    response = ask("NOTHING:")
    assert (response.reasoning, response.finish_reason) == ("", "stop")
    assert response.rendered_digest == digest(tokenizer, "so I\nNOTHING:\nAnswer:")
    assert response.num_output_tokens == 2  # the end token, and the label


def test_reasoning_without_an_end_is_cut_at_the_limit_scored_and_flagged(ask, tokenizer):
    response = ask("ENDLESS:")
    assert (response.reasoning, response.finish_reason) == (" la" * LIMIT, "length")
    assert response.num_output_tokens == LIMIT + 1
    assert response.rendered_digest == digest(tokenizer, "so I\nENDLESS:" + " la" * LIMIT + "\nAnswer:")


def test_reasoning_has_as_much_room_as_the_model_has(engine, make_prompt):
    lengths = range(60, 96)
    prompts = [make_prompt("so " * length, mode="reason", plain_cue="ENDLESS:", answer_cue="\nAnswer:") for length in lengths]
    responses = engine.answer(prompts, 0)
    room = [response.num_output_tokens - 1 for response in responses if response.error is None]
    assert room[0] == LIMIT
    assert room[room.index(LIMIT - 1) :] == list(range(LIMIT - 1, 0, -1))
    assert all("too long to reason" in response.error for response in responses[len(room) :])
    assert "raise engine.max_model_len" in responses[-1].error


def test_the_probabilities_are_those_behind_the_cue(ask, model_dir, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    ids = tokenizer("so I\nTHINK:<think> maybe Answer: wait</think> so Final-\nAnswer:", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        probabilities = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
    expected = [math.log(sum(float(probabilities[tokenizer.get_vocab()[blank + label]]) for blank in ("", " "))) for label in "AB"]
    assert ask("THINK:").option_logprobs == pytest.approx(expected, abs=1e-4)


def test_a_reply_of_several_tokens_follows_the_probabilities(ask, engine, make_prompt):
    response = ask("PLAIN:", reply_tokens=3)
    assert response.text.startswith(" B")
    assert response.num_output_tokens > 5
    [plain] = engine.answer([make_prompt("so", plain_cue="PLAIN:", reply_tokens=4)], 0)
    assert (plain.text, plain.finish_reason, plain.num_output_tokens) == (" I hold it Final-Answer:", "length", 4)
    assert plain.reasoning is None
    [ended] = engine.answer([make_prompt("so", plain_cue="NOTHING:", reply_tokens=4)], 0)
    assert (ended.text, ended.finish_reason, ended.num_output_tokens) == ("", "stop", 1)
