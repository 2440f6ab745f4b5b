"""The first stage of `augment.paraphraser`: a model writes the paraphrases that items lack, and is asked whether options stayed in place.

Two small evaluations inside the run, RUN/paraphrase/write and RUN/paraphrase/check, resumable like any other; what comes of them is
RUN/paraphrases.jsonl, refused replies with the reason. The items asked are held in memory here: a paraphrase is read beside its original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wdct_dist.config.schema import Config
from wdct_dist.errors import Incomplete
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts import paraphrase
from wdct_dist.prompts.paraphrase import Paraphrases, Written
from wdct_dist.prompts.types import Prompt
from wdct_dist.tables import prompts_file
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.prompts_file import PromptIndex
from wdct_dist.tables.storage import Store

Ask = Callable[[Store, PromptIndex], None]
"""Has the prompts of a store answered by the paraphraser; raises where not all are."""


def read_paraphrases(store: Store, config: Config) -> Paraphrases | None:
    """What the run's paraphraser wrote; None where the configuration names none or nothing is written yet."""
    if config.augment.paraphraser is None or not store.exists(paraphrase.NAME):
        return None
    return Paraphrases.from_lines(store.read(paraphrase.NAME).decode().splitlines())


def write_paraphrases(store: Store, config: Config, items: Iterable[Item], ask: Ask) -> Paraphrases:
    """Has the paraphrases written and checked, and keeps them in the run; those that are there already are read."""
    found = read_paraphrases(store, config)
    if found is not None:
        return found
    held = {item.item_id: item for item in items}
    texts = _answered(store.child("paraphrase/write"), list(paraphrase.paraphrase_prompts(held.values(), config)), ask)
    written = [paraphrase.read_reply(prompt, row["text"] or "", _original(held, prompt)) for prompt, row in texts]
    asked = [paraphrase.check_prompts(one, _original(held, one), held[one.item_id].domain, config) for one in written]
    answers = iter(_answered(store.child("paraphrase/check"), [prompt for prompts in asked for prompt in prompts], ask))
    lines = [
        paraphrase.to_line(paraphrase.checked(one, _original(held, one), [next(answers)[1]["option_logprobs"] for _ in prompts]))
        for one, prompts in zip(written, asked, strict=True)
    ]
    store.write(paraphrase.NAME, "".join(lines).encode())
    return Paraphrases.from_lines(lines)


def _original(held: Mapping[str, Item], of: Prompt | Written) -> Question:
    original = held[of.item_id].question(of.side, of.language)
    assert original is not None
    return original


def _answered(store: Store, prompts: list[Prompt], ask: Ask) -> list[tuple[Prompt, dict[str, Any]]]:
    """Each prompt with its answer's row, in order."""
    if not prompts:
        return []
    store.make_root()
    # by variant, so that units are whole shards: where variants alternate, a unit is one prompt, and is decoded alone
    index = prompts_file.write_prompts(store, sorted(prompts, key=lambda prompt: prompt.variant))
    ask(store, index)
    by_id = {
        row["prompt_id"]: row
        for name in store.names("answers")
        for row in read_table(store, name).select(["prompt_id", "trial", "text", "option_logprobs"]).to_pylist()
        if row["trial"] == 0
    }
    missing = [prompt.prompt_id for prompt in prompts if prompt.prompt_id not in by_id]
    if missing:
        raise Incomplete(f"{store.uri}: {len(missing)} of {len(prompts)} prompts have no answer; give the command again.")
    return [(prompt, by_id[prompt.prompt_id]) for prompt in prompts]
