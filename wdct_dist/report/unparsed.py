"""How many replies can be read, and some of those that cannot, for a person to read."""

from __future__ import annotations

from wdct_dist.items.record import shown
from wdct_dist.metrics.parsed import REPLY_STATUSES, ReplyTally

MAX_CHARACTERS = 160
"""Of a reply that is shown."""

IN_WORDS = {
    "ok": "choose one option",
    "several": "name several",
    "refusal": "decline",
    "empty": "are empty",
    "unparsed": "name none",
}


def unparsed_text(tally: ReplyTally) -> str:
    """What `wdct score` prints of the replies: for each checkpoint how many have which status, then the sample, a line each.

    Empty where the run has no replies. Everything is printable: control characters in replies are escaped.
    """
    lines = []
    for checkpoint_id, counts in tally.counts.items():
        total = sum(counts.values())
        parts = [f"{counts[status]:,} {IN_WORDS[status]}" for status in REPLY_STATUSES if counts[status] or status == "ok"]
        lines.append(f"{checkpoint_id}: {total:,} replies, {100 * counts['ok'] / total:.1f} % read: {', '.join(parts)}")
    if tally.sample.height:
        num_unread = sum(count for counts in tally.counts.values() for status, count in counts.items() if status != "ok")
        lines.append(f"{tally.sample.height} of the {num_unread:,} replies that choose no option:")
        columns = ("reply_status", "variant", "language", "item_id", "side", "text")
        lines += [
            f"  {status:<9} {variant} {language} {item_id} {side}: {shown(text, MAX_CHARACTERS)}"
            for status, variant, language, item_id, side, text in tally.sample.select(columns).iter_rows()
        ]
    return "\n".join(lines)
