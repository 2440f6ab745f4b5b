"""Tokenizers of every family, small enough to be read here, and the prompts that the tests put to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.prompts.types import Message, Mode, Prompt

LETTERS = [chr(code) for code in range(33, 127)]
"""Printable ASCII without the blank."""


def byte_level() -> Tokenizer:
    """As GPT-2's: every byte is a letter; `ĠA` is a blank and an A; `:(` is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "A"), ("Ġ", "B"), ("Ġ", "("), (":", "(")]
    vocab = {piece: index for index, piece in enumerate([*alphabet, *("".join(merge) for merge in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: sentencepiece BPE, `▁` for a blank, bytes for what it does not know, `<s>` in front."""
    merges = [("▁", "A"), ("▁", "B"), ("▁", "(")]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS, *("".join(m) for m in merges)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5's: sentencepiece unigram, `</s>` behind every text, one Chinese label as a piece of its own."""
    words = [("▁A", -3.0), ("▁B", -3.0), ("▁(", -3.0), ("甲", -4.0), ("▁", -4.0)]
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *words, *((letter, -6.0) for letter in LETTERS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in ("<unk>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def wordpiece(lowercase: bool = False) -> Tokenizer:
    """As BERT's: `##A` continues a word; [CLS] in front and [SEP] behind; with `lowercase` it has no capitals."""
    letters = [letter for letter in LETTERS if not (lowercase and letter.isupper())]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), "甲", "乙"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    if lowercase:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in pieces[:4]])
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


FAMILIES: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "byte_level": (byte_level, {}),
    "byte_fallback": (byte_fallback, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "unigram": (unigram, {"eos_token": "</s>", "unk_token": "<unk>"}),
    "wordpiece": (wordpiece, {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}),
    "lowercase": (
        lambda: wordpiece(lowercase=True),
        {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"},
    ),
}


@pytest.fixture(scope="session")
def cpu():
    """vLLM's platform, where that is the CPU."""
    platform = pytest.importorskip("vllm.platforms", reason="vLLM is not installed").current_platform
    if not platform.is_cpu():
        pytest.skip("vLLM is not the CPU's")
    return platform


@pytest.fixture
def make_tokenizer() -> Callable[..., Any]:
    """A tokenizer of a family by name, with a chat template where one is given."""

    def make(family: str, chat_template: str | None = None) -> Any:
        build, special = FAMILIES[family]
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=build(), name_or_path=f"the {family} tokenizer", **special)
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture
def make_prompt() -> Callable[..., Prompt]:
    """A prompt of one user message, or of `messages`."""

    def make(
        text: str = "Which is it?",
        *,
        labels: tuple[str, ...] = ("A", "B"),
        permutation: tuple[int, ...] | None = None,
        messages: tuple[Message, ...] | None = None,
        mode: Mode = "score",
        prompt_id: str = "p",
        **fields: Any,
    ) -> Prompt:
        return Prompt(
            prompt_id,
            item_id="i",
            domain="Opinion",
            side="word",
            variant="direct",
            language="en",
            permutation=permutation or tuple(range(len(labels))),
            labels=labels,
            messages=messages or (Message("user", text),),
            mode=mode,
            **fields,
        )

    return make


@pytest.fixture
def make_checkpoint() -> Callable[..., Checkpoint]:
    def make(checkpoint_id: str = "small", digest: str = "d" * 64, directory: Path = Path()) -> Checkpoint:
        return Checkpoint(
            checkpoint_id,
            digest,
            directory,
            source=str(directory),
            architecture="LlamaForCausalLM",
            signature="s",
            size_bytes=0,
            dtype="bfloat16",
            max_position=8192,
            has_chat_template=True,
            kind="directory",
        )

    return make


@pytest.fixture(scope="module")
def reference(small_model):
    """Logprobs of every next token behind some ids, by a float32 forward pass of transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32).eval()

    def logprobs(ids):
        with torch.inference_mode():
            return torch.log_softmax(model(torch.tensor([list(ids)])).logits[0, -1].double(), dim=-1)

    return logprobs
