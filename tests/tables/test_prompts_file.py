"""prompts.arrow: written in a stream, read by range."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.errors import StorageError
from wdct_dist.prompts.types import Message, Prompt
from wdct_dist.tables.prompts_file import BATCH_ROWS, PromptReader, index_of, write_prompts
from wdct_dist.tables.storage import Store


def prompts(count: int, variant: str = "direct") -> list[Prompt]:
    return [
        Prompt(
            f"{variant}-{n}", f"item-{n}", "Opinion", "word", variant, "en", (1, 0), ("A", "B"), (Message("user", f"¿{n}? 是"),), "score"
        )
        for n in range(count)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    return store


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (BATCH_ROWS - 2, BATCH_ROWS + 3), (0, 2500), (2499, 2500), (7, 7)])
def test_any_range_is_read_back_as_it_was(store: Store, start: int, stop: int) -> None:
    written = prompts(2500)
    write_prompts(store, iter(written))
    assert PromptReader(store).read(start, stop) == written[start:stop]


def test_the_index_says_where_each_variant_stands(store: Store) -> None:
    index = write_prompts(store, [*prompts(1500), *prompts(3, "cot")])
    assert [(one.variant, one.start, one.stop) for one in index.variants] == [("direct", 0, 1500), ("cot", 1500, 1503)]
    assert index.num_prompts == 1503


def test_the_digest_is_that_of_the_prompts_in_their_order(store: Store) -> None:
    assert write_prompts(store, prompts(10)).digest == index_of(prompts(10)).digest
    assert index_of(reversed(prompts(10))).digest != index_of(prompts(10)).digest


def test_a_missing_file_is_an_error_of_the_store(store: Store) -> None:
    with pytest.raises(StorageError, match=r"prompts\.arrow cannot be read"):
        PromptReader(store)
