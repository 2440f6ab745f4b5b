from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError, DataError
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.types import Prompt
from wdct_dist.prompts.variants.registry import find_variants
from wdct_dist.tables.prompts_file import PromptReader, index_of, write_prompts
from wdct_dist.tables.storage import Store

EVERY_VARIANT = "variants=[direct,cot,augmented,joint,joint-reverse,paper]"


def test_every_variant_speaks_chinese(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    two_options = [item for item in bundled if item.num_options == 2]
    prompts = prompts_of(two_options[:3], EVERY_VARIANT, "data.languages=[zh]", "augment.sample=5")
    assert {prompt.variant.split("/")[0] for prompt in prompts} == {"direct", "cot", "augmented", "joint", "joint-reverse", "paper"}
    for prompt in prompts:
        asked = prompt.messages[-1].content
        assert prompt.language == "zh"
        assert not any(word in asked for word in ("Answer", "Which", "option", "label")), asked
        assert (prompt.plain_cue or asked[-3:]) in ("答案：", "信念：")


def test_every_prompt_comes_back_from_the_file_as_it_was(tmp_path: Path, configure: Callable[..., Config], bundled: list[Item]) -> None:
    config = configure(EVERY_VARIANT, "data.languages=[en,zh]", "prompt.system=Be brief.", "prompt.reply_tokens=7")
    prompts = list(build_prompts(bundled[:12], config))
    store = Store(str(tmp_path / "run"))
    store.make_root()
    index = write_prompts(store, iter(prompts))
    assert PromptReader(store).read(0, len(prompts)) == prompts
    assert index == index_of(iter(prompts))
    assert sum(index.num_by_variant.values()) == index.num_prompts == len({prompt.prompt_id for prompt in prompts})
    assert {prompt.reply_tokens for prompt in prompts} == {7}


def test_a_prompts_id_changes_with_everything_that_an_engine_is_given(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    def first_id(*overrides: str) -> str:
        return prompts_of([make_item()], *overrides)[0].prompt_id

    ids = [
        first_id(),
        first_id("prompt.reply_tokens=5"),
        first_id("prompt.system=Be brief."),
        first_id("prompt.answer_prefix='Answer:'"),
        first_id("prompt.labels=['1','2']"),
        first_id("variants=[cot]"),
        first_id("variants=[cot]", "prompt.answer_prefix='So:'"),
    ]
    assert len(set(ids)) == len(ids)


def test_the_variants_of_a_family_go_through_the_items_block_by_block(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    items = [make_item(str(number)) for number in range(5)]
    settings = ("variants=[direct,augmented]", "augment.label_sets=[letters]", "augment.wordings=[0,1]", "prompt.block_items=2")
    prompts = prompts_of(items, *settings)
    runs = [(name.partition("/paraphrase")[0], [p.item_id for p in group][::4]) for name, group in groupby(prompts, lambda p: p.variant)]
    assert runs == [
        ("direct", ["0", "1", "2", "3", "4"]),
        ("augmented/labels=letters/wording=0", ["0", "1"]),
        ("augmented/labels=letters/wording=1", ["0", "1"]),
        ("augmented/labels=letters/wording=0", ["2", "3"]),
        ("augmented/labels=letters/wording=1", ["2", "3"]),
        ("augmented/labels=letters/wording=0", ["4"]),
        ("augmented/labels=letters/wording=1", ["4"]),
    ]


def test_how_the_items_are_blocked_changes_the_order_alone(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    ids = [{p.prompt_id for p in prompts_of(bundled, EVERY_VARIANT, f"prompt.block_items={size}")} for size in (1, 7, 1000)]
    assert ids[0] == ids[1] == ids[2]


def test_leaving_an_item_out_changes_no_other_items_prompts(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    settings = (EVERY_VARIANT.replace(",paper", ""), "cot.shots=2", "orders=random", "augment.sample=3")
    every = {prompt.prompt_id for prompt in prompts_of(bundled, *settings)}
    assert {prompt.prompt_id for prompt in prompts_of(bundled[5:], *settings)} < every


def test_too_few_labels_name_the_item(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.labels: 2 labels came, item one has 3 options"):
        prompts_of([make_item(num_options=3)], "prompt.labels=[A,B]")


def test_a_run_in_which_nothing_can_be_asked_says_why(prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]) -> None:
    with pytest.raises(DataError, match=r"no item can be asked.*\n.*paper: 1 items left out: orders: paper draws for two options"):
        prompts_of([make_item(num_options=3)], "protocol=paper")


def test_what_is_left_out_is_named_once_for_variants_that_leave_out_the_same() -> None:
    tally = SkipTally()
    tally.items.update({("mine/a=1", "too long"): 3, ("mine/a=2", "too long"): 3, ("mine/a=3", "too long"): 1, ("cot", "none"): 2})
    assert tally.lines() == [
        "2 variants of mine: 3 items left out: too long",
        "mine/a=3: 1 items left out: too long",
        "cot: 2 items left out: none",
    ]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a module `wdct_mine_N` whose `variant` is registered as `mine`."""
    numbers = iter(range(100))

    def make(source: str, target: str = "variant") -> None:
        folder = tmp_path / f"site{next(numbers)}"
        module = f"wdct_mine_{abs(hash((tmp_path, folder)))}"
        info = folder / "mine-1.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[wdct_dist.variants]\nmine = {module}:{target}\n")
        monkeypatch.syspath_prepend(folder)

    return make


IMPORTS = "from wdct_dist.prompts.types import *\nfrom wdct_dist.prompts.variants.types import *\nUSER = (Message('user', 'Q'),)\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def variant(ask): return 'Q?'", "gave str; a variant gives a Draft"),
        ("def variant(ask): return [None]", "gave list; a variant gives a Draft"),
        ("def variant(ask): return ask.nothing", "failed with AttributeError"),
        ("def variant(ask): return [Draft(USER), Draft(USER)]", "the same messages twice"),
        ("def variant(ask): return Draft(())", "no message of the user"),
        ("def variant(ask): return Draft(USER, mode='guess')", "'guess'; it must be score or reason"),
        ("def variant(ask): return Draft(USER, mode='reason')", "the mode reason needs it"),
        ("def variant(ask): return Draft(USER, answer_cue='So:')", "answer_cue goes with the mode reason"),
        ("def variant(ask): return Draft(USER, labels=('A', 'A'))", "2 that differ are needed"),
        ("def variant(ask): return Draft((*USER, Message('assistant', ANSWER_SLOT)))", "answer slot stands once"),
        ("def variant(ask): return Draft((Message('user', ANSWER_SLOT), *USER))", "answer slot stands once"),
        ("variant = 3", "is not a function"),
        ("import no_such_module", "cannot be imported"),
        ("class Family:\n    def expand(self, config): return []\nvariant = Family()", "at least one pair"),
        ("class Family:\n    def expand(self, config): return [('a', 3)]\nvariant = Family()", "at least one pair"),
        ("class Family:\n    def expand(self, config): raise KeyError('x')\nvariant = Family()", "its `expand` failed with KeyError"),
        ("class Family:\n    def expand(self, config): return [('direct', lambda ask: Draft(USER))]\nvariant = Family()", "more than once"),
    ],
)
def test_a_variant_of_a_users_own_that_is_wrong_is_named(
    body: str,
    message: str,
    install: Callable[[str], None],
    prompts_of: Callable[..., list[Prompt]],
    make_item: Callable[..., Item],
) -> None:
    install(IMPORTS + body + "\n")
    with pytest.raises(ConfigError, match=message) as raised:
        prompts_of([make_item()], "variants=[direct,mine]")
    assert str(raised.value).startswith("variants: ")


def test_a_family_has_a_row_key_for_each_of_its_variants(install: Callable[[str], None], configure: Callable[..., Config]) -> None:
    install(
        IMPORTS
        + "class Family:\n    def expand(self, config): return [(f'mine/n={n}', lambda ask: Draft(USER)) for n in range(config.trials)]\n"
        + "variant = Family()\n"
    )
    families = find_variants(configure("variants=[direct,mine]", "trials=3"))
    assert [[name for name, _ in family] for family in families] == [["direct"], ["mine/n=0", "mine/n=1", "mine/n=2"]]


def test_one_question_may_be_asked_in_several_conversations(
    install: Callable[[str], None], prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    install(IMPORTS + "def variant(ask): return [Draft((Message('user', f'{n}'),)) for n in range(3)]\n")
    prompts = prompts_of([make_item()], "variants=[mine]", "orders=as_given")
    assert [(prompt.side, prompt.messages[0].content) for prompt in prompts] == [(s, n) for s in ("word", "deed") for n in "012"]


def test_a_translation_of_one_side_is_asked_alone_where_the_variant_needs_no_other(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    item = replace(make_item(), translations={"zh": {"deed": Question("怎么办？", ("做", "不做"))}})
    prompts = prompts_of([item], "data.languages=[zh]")
    assert {(prompt.side, prompt.language) for prompt in prompts} == {("deed", "zh")}
