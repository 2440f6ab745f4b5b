"""What words alone say of a paraphrase; what is wrong with one is in test_paraphrase.py, by the replies that were given."""

from __future__ import annotations

import pytest

from wdct_dist.prompts.alignment import clearly_of

REPLACE, CONVERT = "To replace it with something designed for today", "To convert it and keep the old fabric"


@pytest.mark.parametrize(
    ("text", "own", "others", "clear"),
    [
        (REPLACE.upper(), REPLACE, [CONVERT], True),
        ("To replace it with something new, designed for our day", REPLACE, [CONVERT], True),
        ("To tear it down", REPLACE, [CONVERT], False),
        (CONVERT, REPLACE, [CONVERT], False),
        # said in nearly the same words, and the opposite
        ("To not replace it with something designed for today", REPLACE, [CONVERT], False),
        ("Yes, drivers should still be able to reach it", "No, drivers should still be able to reach it", ["Yes, on foot"], False),
        # both originals share most of their words
        ("Better with it, since the flow matters", "Better with it, since calls matter", ["Better without it, since flow matters"], False),
        ("不应该，学习应当留在课上完成", "不应该，学习应当留在上课时间内完成", ["应该，每天练习"], True),
        ("应该，学习应当留在课上完成", "不应该，学习应当留在上课时间内完成", ["应该，每天练习"], False),
    ],
)
def test_a_text_is_clearly_of_the_original_that_it_resembles_most_and_says_no_otherwise(
    text: str, own: str, others: list[str], clear: bool
) -> None:
    assert clearly_of(text, own, others) is clear
