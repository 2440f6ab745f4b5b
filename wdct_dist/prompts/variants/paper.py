"""paper: the published prompt, for `protocol: paper`.

Published in eval/test_local_models.py of icip-cas/Word-Deed-Consistency-Test (commit 63cba03). The text ends in `Answer:` in the user's
own message, in a chat as for base models, and ten new tokens are generated. Two options only: the published swap and its
parsing know no third.

On the published items, the text of 2,343 of the 2,422 prompts is the published one to the letter. 78 differ in white space around a
question, which `items/load.py` strips. In one (ecomics_50, whose word question ends in a line end) the published swap moved the empty
line in the place of an option and left both options where they were; here it is swapped like any other.
"""

from __future__ import annotations

from wdct_dist.prompts.templates import paper_text, wording
from wdct_dist.prompts.variants.types import Ask, Draft, Skip, framed

REPLY_TOKENS = 10


def paper(ask: Ask) -> Draft | Skip:
    """The label probabilities at the first place of the reply, and up to ten tokens of it as text."""
    if len(ask.labels) != 2:
        return Skip("the published protocol has two options")
    text = paper_text(wording(ask.language), ask.question.question, ask.options_shown, ask.labels)
    tokens = ask.settings.reply_tokens or REPLY_TOKENS
    return Draft(framed(text, ask.settings), reply_tokens=tokens, plain_cue="")
