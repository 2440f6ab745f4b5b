"""What `wdct score` prints of the replies."""

from __future__ import annotations

import polars as pl

from wdct_dist.metrics.parsed import REPLY_STATUS, ReplyTally
from wdct_dist.report.unparsed import MAX_CHARACTERS, unparsed_text


def tally(*rows: tuple[str, str], checkpoint: str = "small", sample_size: int = 10) -> ReplyTally:
    """Replies as (status, text)."""
    made = ReplyTally(sample_size)
    frame = pl.DataFrame(
        [
            {"checkpoint_id": checkpoint, "prompt_id": f"p{i}", "trial": 0, "item_id": f"item-{i}", "side": "deed"}
            | {"variant": "direct", "language": "zh", "text": text, "reply_status": status}
            for i, (status, text) in enumerate(rows)
        ],
        schema_overrides={"reply_status": REPLY_STATUS},
    )
    made.add(frame)
    return made


def test_a_line_says_how_many_are_read_and_why_the_others_are_not() -> None:
    text = unparsed_text(tally(("ok", "A"), ("ok", "B"), ("refusal", "no"), ("several", "A or B")))
    assert text.splitlines()[0] == "small: 4 replies, 50.0 % read: 2 choose one option, 1 name several, 1 decline"


def test_the_sample_names_status_variant_language_item_and_side() -> None:
    lines = unparsed_text(tally(("ok", "A"), ("unparsed", "Well now"))).splitlines()
    assert lines[1:] == ["1 of the 1 replies that choose no option:", "  unparsed  direct zh item-1 deed: Well now"]


def test_a_reply_cannot_write_to_the_terminal_and_stays_on_one_line() -> None:
    lines = unparsed_text(tally(("unparsed", "one\ntwo\x1b[31m" + "x" * 500))).splitlines()
    assert len(lines) == 3
    assert r"one\ntwo\x1b[31mxxx" in lines[2]
    assert len(lines[2]) < MAX_CHARACTERS + 80


def test_replies_that_are_all_read_have_no_sample() -> None:
    assert unparsed_text(tally(("ok", "A"))) == "small: 1 replies, 100.0 % read: 1 choose one option"


def test_a_run_without_replies_prints_nothing() -> None:
    assert unparsed_text(ReplyTally()) == ""
