from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError
from wdct_dist.items.demonstrations import Shot, load_demonstrations
from wdct_dist.items.selection import select_items
from wdct_dist.items.types import Item, Question
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.types import Prompt
from wdct_dist.prompts.variants.cot import ShotPool
from wdct_dist.prompts.variants.registry import find_variants

COT = "variants=[cot]"


def test_a_belief_is_asked_for_first_and_the_answer_is_read_behind_the_cue(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    prompt = prompts_of([make_item()], COT)[0]
    assert prompt.mode == "reason"
    assert prompt.answer_cue == "\nAnswer:"
    assert prompt.plain_cue == "Belief:"
    assert "Answer:" in prompt.stop
    asked = prompt.messages[-1].content
    assert asked.index("Belief") < asked.index("Answer")


def test_a_side_without_reasoning_is_asked_as_direct_asks_it(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    prompts = prompts_of([make_item()], "variants=[direct,cot]", "cot.sides=[deed]", "prompt.reply_tokens=4")
    assert {(p.variant, p.side): p.mode for p in prompts}["cot", "word"] == "score"
    assert {(p.variant, p.side): p.mode for p in prompts}["cot", "deed"] == "reason"
    word = [(p.messages, p.reply_tokens, p.stop, p.plain_cue) for p in prompts if p.side == "word"]
    assert word[:2] == word[2:]


def test_the_beginning_of_the_reply_moves_behind_the_reasoning(
    prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    prompt = prompts_of([make_item()], COT, "prompt.answer_prefix='My choice is'", "prompt.system=Be brief.")[0]
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert prompt.answer_cue == "\nMy choice is"


def test_its_name_says_the_demonstrations(configure: Callable[..., Config]) -> None:
    def names(*overrides: str) -> list[str]:
        return [name for family in find_variants(configure(COT, *overrides)) for name, _ in family]

    assert names() == ["cot"]
    assert names("cot.shots=3") == ["cot-3shot"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_demonstrations_stand_before_the_question_in_its_language(
    language: str, prompts_of: Callable[..., list[Prompt]], bundled: list[Item]
) -> None:
    cue = {"en": "Belief: ", "zh": "信念："}[language]
    prompts = prompts_of(bundled, COT, "cot.shots=3", f"data.languages=[{language}]")
    assert len(prompts) == 448
    for prompt in prompts:
        *shots, asked = prompt.messages[0].content.split(f"\n{cue}")
        assert len(shots) == 3
        item = next(item for item in bundled if item.item_id == prompt.item_id)
        question = item.question(prompt.side, language)
        assert question is not None
        assert question.question in asked
        assert not any(question.question in shot for shot in shots)


def test_no_demonstration_is_of_the_items_own_or_asks_its_question(wdct_csv: Path, configure: Callable[..., Config]) -> None:
    pool = ShotPool(load_demonstrations(str(wdct_csv.with_name("demo.csv"))), 0)
    items = list(select_items(configure(f"data.path={wdct_csv}").data))
    asked_by = {item.item_id: {q.question for q in item.questions.values()} for item in items}
    of_demonstrations = {shot.shot.item_id for shot in pool.draw(items[0], "deed", "en", 30)}
    assert of_demonstrations & asked_by.keys()  # ids of the one file are ids of the other: there is something to avoid
    same_domain: Counter[bool] = Counter()
    for item in items:
        drawn = [one.shot for one in pool.draw(item, "deed", "en", 3)]
        assert len({shot.item_id for shot in drawn}) == 3
        assert all(shot.item_id != item.item_id and shot.question.question not in asked_by[item.item_id] for shot in drawn)
        assert all(len(shot.question.options) <= item.num_options for shot in drawn)
        same_domain.update(shot.domain == item.domain for shot in drawn if item.domain != "Theory")
    assert same_domain[False] == 0  # demo.csv has none of Theory, and enough of the others


def shots(*item_ids: str, **changes: str) -> list[Shot]:
    return [Shot(i, "Opinion", None, "en", Question(f"Q {i}?", (f"{i} yes", f"{i} no")), f"I believe {i}.", 0) for i in item_ids]


def test_the_same_question_in_other_letters_is_not_shown(make_item: Callable[..., Item]) -> None:
    item = make_item("one")
    twin = Shot("other", "Opinion", None, "en", Question("what is DONE  about one?", ("x", "y")), "b", 0)
    pool = ShotPool([twin, *shots("a")], 0)
    assert [one.shot.item_id for one in pool.draw(item, "word", "en", 2)] == ["a"]


def test_the_drawing_is_of_the_item_the_side_and_the_seed(make_item: Callable[..., Item]) -> None:
    many = shots(*map(str, range(30)))

    def drawn(item_id: str, side: str, seed: int) -> tuple[str, ...]:
        return tuple(one.shot.item_id for one in ShotPool(many, seed).draw(make_item(item_id), side, "en", 4))  # type: ignore[arg-type]

    assert drawn("one", "word", 0) == drawn("one", "word", 0)
    assert len({drawn("one", "word", 0), drawn("one", "deed", 0), drawn("two", "word", 0), drawn("one", "word", 1)}) == 4


def test_demonstrations_answer_with_no_label_more_than_with_another(make_item: Callable[..., Item]) -> None:
    pool = ShotPool(shots(*map(str, range(10))), 0)
    orders = Counter(one.permutation for i in range(200) for one in pool.draw(make_item(f"item {i}"), "word", "en", 5))
    assert 430 < orders[0, 1] < 570


def test_all_orders_of_a_question_have_the_same_demonstrations(prompts_of: Callable[..., list[Prompt]], bundled: list[Item]) -> None:
    prompts = prompts_of(bundled[:1], COT, "cot.shots=2")
    first, second = (prompt.messages[0].content for prompt in prompts if prompt.side == "word")
    before = first.split(bundled[0].questions["word"].question)[0]
    assert before
    assert second.startswith(before)


def test_an_item_for_which_too_few_fit_is_left_out_and_counted(
    tmp_path: Path, prompts_of: Callable[..., list[Prompt]], make_item: Callable[..., Item]
) -> None:
    rows = [f'{i},Opinion,p,"Q {i}?\nA. {i} yes\nB. {i} no","Belief: b\nAnswer: A"' for i in ("one", "b", "c")]
    (tmp_path / "demo.csv").write_text("id,Type,Prompt,Question,Belief\n" + "\n".join(rows) + "\n")
    tally = SkipTally()
    settings = (COT, "cot.shots=2", f"cot.demonstrations={tmp_path / 'demo.csv'}", "data.languages=[en,zh]")
    item = make_item("two", translations={"zh": {side: Question("问？", ("甲", "乙")) for side in ("word", "deed")}})
    prompts = prompts_of([make_item("one"), item], *settings, skipped=tally)
    assert {(prompt.item_id, prompt.language) for prompt in prompts} == {("one", "en"), ("two", "en")}
    assert tally.lines() == ["cot-2shot: 1 items left out: fewer than 2 demonstrations in zh fit"]


def test_more_demonstrations_than_there_are_is_a_mistake_of_the_configuration(
    configure: Callable[..., Config], wdct_csv: Path, make_item: Callable[..., Item], tmp_path: Path
) -> None:
    (tmp_path / "demo.csv").write_text('id,Type,Prompt,Question,Belief\n1,Opinion,p,"Q?\nA. a\nB. b","Belief: b\nAnswer: A"\n')
    config = configure(COT, "cot.shots=1", f"cot.demonstrations={tmp_path / 'demo.csv'}")
    with pytest.raises(ConfigError, match=r"cot\.shots: 1 demonstrations of other items .* 1 items"):
        list(build_prompts([make_item()], config))
