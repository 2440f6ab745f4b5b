"""What the tests of prompts share: configurations by overrides, items, and prompts built from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.config.load import load_config
from wdct_dist.config.schema import Config
from wdct_dist.items.load import BUNDLED, read_records
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.types import Prompt


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """A checked configuration from overrides."""

    def make(*overrides: str) -> Config:
        path = tmp_path / "c.yaml"
        path.write_text("checkpoints: [demo]\nengine: {kind: scripted}\n")
        return load_config(path, overrides)

    return make


@pytest.fixture
def make_item() -> Callable[..., Item]:
    def make(item_id: str = "one", num_options: int = 2, domain: str = "Opinion", **changes: Any) -> Item:
        return Item(
            item_id,
            domain,
            {
                "word": Question(f"What is said of {item_id}?", tuple(f"say {item_id} {i}" for i in range(num_options))),
                "deed": Question(f"What is done about {item_id}?", tuple(f"do {item_id} {i}" for i in range(num_options))),
            },
            **changes,
        )

    return make


@pytest.fixture(scope="session")
def bundled() -> list[Item]:
    return [record.item for record in read_records(BUNDLED) if record.item is not None]


@pytest.fixture
def prompts_of(configure: Callable[..., Config]) -> Callable[..., list[Prompt]]:
    """The prompts of items under overrides."""

    def build(items: list[Item], *overrides: str, skipped: SkipTally | None = None, **more: Any) -> list[Prompt]:
        return list(build_prompts(items, configure(*overrides), skipped=skipped, **more))

    return build
