"""Which tokens spell a label at the place of the reply, and what their logprobs say about the options.

A label is spelled by every single token that reads as the label there (`A`, ` A`, `▁A` …; found by decoding the whole vocabulary in
place), and by the tokens that the tokenizer itself makes of the label there, with and without a blank in front. Token
names are never compared, so byte-level, sentencepiece and wordpiece vocabularies are all the same here.

Usual labels are one token long: they are read where the reply begins, in one prefill. Longer spellings, such as `(`, `a`, `)`, make a
small trie: each of its inner nodes is a place (a *context*: tokens behind the prompt) where more logprobs are read, and the
probability of a label is the sum over its spellings of the product along each. No vLLM here, and nothing that needs a model.
"""

from __future__ import annotations

import math
import string
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from wdct_dist.engine.render import Rendered
from wdct_dist.errors import CheckpointError, EngineError
from wdct_dist.prompts.permute import by_option

TAIL_TOKENS = 8
"""How many of a prompt's last tokens decide how a label is spelled behind them."""

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """Where to read, what to read there, and how it adds up. Contexts and reads have the same length and order."""

    labels: tuple[str, ...]
    contexts: tuple[Path, ...]
    """Tokens behind the prompt after which logprobs are read; the first is empty, and mostly the only one."""
    reads: tuple[tuple[int, ...], ...]
    """The token ids to read in each context, ascending."""
    spellings: tuple[tuple[Path, ...], ...]
    """The token paths of each label."""

    def label_logprobs(self, read: Sequence[Mapping[int, float]]) -> tuple[float, ...]:
        """Natural log of each label's probability, from the logprobs by token id in each context.

        Raises `EngineError` where a logprob is missing, NaN or infinite: such a thing is never turned into a number.
        """
        at = {context: index for index, context in enumerate(self.contexts)}
        return tuple(
            _log_sum([_log_product(path, at, read, label) for path in paths])
            for label, paths in zip(self.labels, self.spellings, strict=True)
        )


def option_logprobs(trie: LabelTrie, read: Sequence[Mapping[int, float]], permutation: tuple[int, ...]) -> tuple[tuple[float, ...], float]:
    """Natural logs of the option probabilities by option index, and the label mass: the probability of any label, 0 to 1."""
    by_label = trie.label_logprobs(read)
    mass = math.fsum(math.exp(value) for value in by_label)
    return by_option(by_label, permutation), min(mass, 1.0)  # float32 sums reach 1 + 1e-7


class LabelSpeller:
    """Finds the tries of one tokenizer and keeps them: the prompts of a run share their last tokens and labels."""

    def __init__(self, tokenizer: Any, encode: Callable[[Sequence[str]], list[list[int]]], vocab_size: int | None = None) -> None:
        """`encode` is the renderer's; token ids from `vocab_size` on (the model has no output for them) are left out."""
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        self._encode = encode
        self._token_ids = sorted({i for i in tokenizer.get_vocab().values() if vocab_size is None or i < vocab_size})
        self._known_ids = frozenset(self._token_ids)
        self._lock = threading.Lock()
        self._tries: dict[tuple[Path, tuple[str, ...]], LabelTrie] = {}
        self._wanted = {*string.ascii_letters, *string.digits}
        self._tokens_reading: dict[int, dict[str, list[int]]] = {}

    def trie(self, rendered: Rendered, labels: tuple[str, ...]) -> LabelTrie:
        """The trie of `labels` behind a rendered prompt. Safe to call from several threads.

        Raises `CheckpointError` where a label cannot be spelled there, or two labels are spelled alike.
        """
        key = (rendered.token_ids[-TAIL_TOKENS:], labels)
        if key not in self._tries:
            with self._lock:
                self._tries[key] = self._find(rendered, labels)
        return self._tries[key]

    def _find(self, rendered: Rendered, labels: tuple[str, ...]) -> LabelTrie:
        last = rendered.token_ids[-1]
        readings = [{label, self._normalised(label)} for label in labels]
        single_tokens = self._read_vocabulary(last, set().union(*readings))
        tokenised = self._spelled_by_tokenizer(rendered, labels)
        paths: list[set[Path]] = []
        for label, read_as in zip(labels, readings, strict=True):
            found: set[Path] = {(token,) for reading in read_as for token in single_tokens.get(reading, ())}
            # wordpiece vocabularies put blanks of their own between tokens: `( a )`
            squeezed = {"".join(reading.split()) for reading in read_as}
            found |= {path for path, reading in tokenised[label] if "".join((reading or "").split()) in squeezed}
            if not found:
                raise CheckpointError(
                    f"the tokenizer {self._name} cannot spell the label {label!r} behind {rendered.text[-24:]!r}; "
                    "choose other prompt.labels (nearly every tokenizer has A, B, C …) or another prompt.answer_prefix."
                )
            # where one spelling begins another of the same label, the longer one is part of it
            paths.append({path for path in found if not any(path[:cut] in found for cut in range(1, len(path)))})
        self._require_apart(labels, paths)
        return _trie(labels, paths)

    def _spelled_by_tokenizer(self, rendered: Rendered, labels: tuple[str, ...]) -> dict[str, list[tuple[Path, str | None]]]:
        """What the tokenizer makes of each label behind the prompt, and how that reads.

        A spelling that would change the prompt's own tokens is none: the model is not asked about that text.
        """
        prompt_ids, start = rendered.token_ids, len(rendered.token_ids)
        spellings = [(label, blank + label) for label in labels for blank in ("", " ")]
        encoded = self._encode([rendered.text + spelling for _, spelling in spellings])
        kept = [
            (label, tuple(ids[start:]))
            for (label, _), ids in zip(spellings, encoded, strict=True)
            if len(ids) > start and tuple(ids[:start]) == prompt_ids and self._known_ids.issuperset(ids[start:])
        ]
        found: dict[str, list[tuple[Path, str | None]]] = {label: [] for label in labels}
        for (label, path), reading in zip(kept, self._read(prompt_ids[-1], [path for _, path in kept]), strict=True):
            found[label].append((path, reading))
        return found

    def _read_vocabulary(self, last: int, readings: set[str]) -> dict[str, list[int]]:
        """The tokens of the whole vocabulary that read as one of `readings` behind the token `last`.

        One scan for a last token (0.06 s for 49,152 tokens), and another where labels come that no scan has looked for.
        """
        if not readings <= self._wanted:
            self._wanted |= readings
            self._tokens_reading.clear()
        if last not in self._tokens_reading:
            found: dict[str, list[int]] = {}
            read = self._read(last, [(token,) for token in self._token_ids])
            for token, reading in zip(self._token_ids, read, strict=True):
                if reading is not None and reading in self._wanted:
                    found.setdefault(reading, []).append(token)
            self._tokens_reading[last] = found
        return self._tokens_reading[last]

    def _read(self, last: int, paths: Sequence[Path]) -> list[str | None]:
        """How each path reads behind the token `last`: the text that it adds, without outer white space.

        None where it changes the text before it, as the later bytes of a character do.
        """
        sequences = [[last], *([last, *path] for path in paths)]
        if self._backend is not None:
            before, *texts = self._backend.decode_batch(sequences, skip_special_tokens=True)
        else:
            before, *texts = (
                self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in sequences
            )
        return [text[len(before) :].strip() if text.startswith(before) else None for text in texts]

    def _normalised(self, label: str) -> str:
        """The label as the tokenizer's normaliser leaves it: a tokenizer without capitals can only ever say `a`."""
        normalizer = getattr(self._backend, "normalizer", None)
        return label if normalizer is None else str(normalizer.normalize_str(label)).strip("▁ ")

    def _require_apart(self, labels: tuple[str, ...], paths: Sequence[set[Path]]) -> None:
        """One token sequence counts for one label: no path of a label is, or begins, a path of another."""
        owners: dict[Path, str] = {}
        for label, own in zip(labels, paths, strict=True):
            for path in own:
                if owners.setdefault(path, label) != label:
                    self._refuse(label, owners[path])
        for path, label in owners.items():
            for cut in range(1, len(path)):
                if path[:cut] in owners:
                    self._refuse(label, owners[path[:cut]])

    def _refuse(self, label: str, other: str) -> NoReturn:
        raise CheckpointError(
            f"the tokenizer {self._name} spells the labels {label!r} and {other!r} with the same tokens; "
            "choose prompt.labels that differ in more than the case or form of their letters."
        )


def _trie(labels: tuple[str, ...], paths: Sequence[set[Path]]) -> LabelTrie:
    reads: dict[Path, set[int]] = {(): set()}
    for path in (path for own in paths for path in own):
        for depth, token in enumerate(path):
            reads.setdefault(path[:depth], set()).add(token)
    contexts = sorted(reads, key=lambda context: (len(context), context))
    return LabelTrie(
        labels,
        tuple(contexts),
        tuple(tuple(sorted(reads[context])) for context in contexts),
        tuple(tuple(sorted(own)) for own in paths),
    )


def _log_product(path: Path, at: Mapping[Path, int], read: Sequence[Mapping[int, float]], label: str) -> float:
    values = [read[at[path[:depth]]].get(token) for depth, token in enumerate(path)]
    for token, value in zip(path, values, strict=True):
        if value is None or not math.isfinite(value):
            raise EngineError(
                f"the engine gave {'no logprob' if value is None else value} for token {token} of the label {label!r}; "
                "a finite logprob is needed. The model's weights may hold NaN, or its precision overflows (try engine.dtype: float32)."
            )
    return math.fsum(value for value in values if value is not None)


def _log_sum(values: Sequence[float]) -> float:
    """log(sum(exp)), at most 0: float32 logprobs of a certain label reach +1e-7."""
    top = max(values)
    return min(0.0, top + math.log(math.fsum(math.exp(value - top) for value in values)))
