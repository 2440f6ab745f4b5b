"""In which words replies answer, by language. The words that we send are in `prompts/templates.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplyWords:
    """How replies in one language answer: caseless patterns."""

    answer: str
    """Names of an answer with what leads on to a label: `answer is`, `答案:`."""
    choose: str
    """Verbs that lead on to a label: `I choose`, `选`."""
    option: str
    """Nouns before a label, which alone do not choose it: `option`, `选项`."""
    praised: str
    """What makes the label before it the answer: ` is correct`, `更好`."""
    final: str
    """What makes a statement the last word: `finally`, `最终`."""
    denied: str
    """A label in one clause with such a word before it is not chosen: `not`, `if`, `不`."""
    refuted: str
    """What makes the label before it not the answer: ` is not`, `不对`."""
    joined: str
    """Between labels that are only listed: `or`, `或`."""
    contrast: str
    """After a refusal, an answer may follow it: `however`, `不过`."""
    refusal: str


_AI = r"(?:ai|a\.i\.|artificial\s+intelligence|language\s+model|(?:ai|virtual)\s+assistant|chatbot)"
_CANNOT = r"(?:can['’]?t|cannot|can\s+not|unable|not\s+(?:able|capable|equipped|allowed|designed|permitted)|won['’]t)"

NEVER = r"(?!)"
"""Matches nothing."""


def _brief(*, answer: str, choose: str, denied: str) -> ReplyWords:
    """Return the words of a language of which only plain answers are read."""
    return ReplyWords(answer, choose, NEVER, NEVER, NEVER, denied, NEVER, NEVER, NEVER, NEVER)


REPLY_WORDS: dict[str, ReplyWords] = {
    "en": ReplyWords(
        answer=(
            r"(?<![A-Za-z])(?:answer|choice|selection|decision|pick|label|option(?=\s+is))(?![A-Za-z])[\s*_]*"
            r"(?:(?:is|was|are|would\s+be|will\s+be)\b\s*:?|:|=|-+>?|—|–)"
        ),
        choose=(
            r"\b(?:choos(?:es?|ing)|chosen?|pick(?:s|ed|ing)?|select(?:s|ed|ing)?|prefer|(?:go|going|went)\s+(?:with|for)"
            r"|not\s+\W?\w{1,4}\W{0,2}\s+but(?:\s+rather)?|so|therefore|it(?:['’]s|\s+is)|(?:i\s+would|i['’]d|i\s+will|i['’]ll)\s+(?:do|say|take)"
            r"|opt(?:s|ed|ing)?\s+for|vote\s+for|lean(?:ing)?\s+towards?|settled?\s+on|decided?\s+on)\b:?"
        ),
        option=r"\b(?:option|choice|label|answer)\b:?",
        praised=(
            r"\s+(?:is|would\s+be|seems|sounds)\s+(?:(?:the|my|a|clearly|definitely|probably|more|most)\s+)*"
            r"(?:better|best|correct|right|preferable|preferred|answer|choice|suitable|appropriate)\b"
        ),
        final=r"\b(?:final|finally|in\s+conclusion|therefore|thus|hence|so|overall)\b",
        denied=r"\b(?:not|never|neither|nor|without|instead\s+of|rather\s+than|if|whether|avoid|between|either|reject)\b|n['’]t\b|\bdisagree\s+with\W*(?:option\W*)?\Z",
        refuted=r"\s+(?:is|was|would\s+be)(?:\s+not\b|n['’]t\b|\s+(?:wrong|incorrect|worse|bad)\b)",
        joined=r"(?:or|and|vs\.?|versus)\b",
        contrast=r"\b(?:but|however|that\s+said|nevertheless|nonetheless|still|though|if\s+i\s+had\s+to)\b",
        refusal=(
            rf"\b(?:sorry|apologi[sz]e|apologies)\b[^.\n]{{0,100}}\b(?:{_CANNOT}|as\s+an?\s+(?:[\w-]+\s+){{0,2}}{_AI})\b"
            r"|\A\W*i\s*['’]?\s*a?m\s+sorry\W*(?:but\W*(?:i\W*)?)?\Z"  # cut at the limit
            rf"|\bi\s*(?:['’]m|\s+am)\s+(?:\w+ly\s+)?{_CANNOT}\b"
            r"|\bi\s+(?:can['’]?t|cannot|can\s+not|could\s*n[o'’]t|won['’]t|will\s+not)\s+(?:\w+ly\s+)?"
            r"(?:answer|choose|pick|select|decide|provide|give|make|assist|help|engage|take|express|respond|comment|offer|say)\b"
            r"|\bi\s+(?:must\s+|have\s+to\s+|would\s+)?(?:decline|refuse)\s+to\b"
            r"|\bi\s+(?:do\s+not|don['’]t)\s+(?:\w+ly\s+)?(?:have|hold)\s+(?:\w+\s+){0,3}"
            r"(?:opinions?|beliefs?|preferences?|feelings?|views?|experiences?)\b"
            rf"|\bas\s+an?\s+(?:[\w-]+\s+){{0,2}}{_AI}\b[^.\n]{{0,80}}\b(?:not|no|can\s+only|{_CANNOT}|don['’]t)\b"
            r"|\b(?:cannot|can['’]?t|unable\s+to)\s+answer\b"
            r"|\bnot\s+(?:appropriate|comfortable)\s+(?:for\s+me\s+)?(?:to\s+)?(?:answer|choos|tak|giv|express|provid)"
        ),
    ),
    "zh": ReplyWords(
        answer=r"(?:答案|选择|回答|选项|决定|结论)(?:应该|应当|应|就|只能)?(?:是|为|:|=)+(?:选项|标签|选择?|:)*",
        choose=r"(?:而是|选择|选|挑选|选取|选定|倾向于|支持)(?:了|的是|是|选项|标签|答案|:)*",
        option=r"(?:选项|标签|答案|方案)(?:是|为|:)?",
        praised=r"\s*(?:选项|项)?\s*(?:是|才是|比较|更|最)(?:为|加)?(?:正确|好|佳|合适|恰当|对|合理|我的选择|我的答案|答案)",
        final=r"(?:最终|最后|综上|因此|所以|总之)",
        denied=r"不(?!得不|过|管|仅|如|妨|犹|同意)|(?<![分特区个类识差])别(?!人|的)|没有?|而非|如果|若|假如|是否|还是|之间",
        refuted=r"\s*(?:选项|项)?\s*(?:是)?(?:不对|不好|不正确|不合适|错的|错误)",
        joined=r"(?:或者?|和|与|还是|以及)",
        contrast=r"(?:但是?|不过|然而|如果一定要|如果必须)",
        refusal=(
            r"(?:抱歉|对不起|很遗憾)[^。\n]{0,30}(?:无法|不能|不便|没有|不可以)"
            r"|作为[^。\n]{0,12}(?:ai|人工智能|语言模型|助手)[^。\n]{0,30}(?:无法|不能|没有|不会|不便|不具)"
            r"|(?:无法|不能|不便|拒绝|不愿|不可以)(?:直接|为您|为你|对此|就此)?(?:回答|作答|(?:做|作)出选择|给出(?:答案|选择|标签))"
            r"|我(?:无法|不能|不便|不愿)(?:选择|提供|帮助|协助|表达)"
        ),
    ),
    # Of these languages the words that lead on to a label, and those that deny one; everything else is left unread.
    "de": _brief(
        answer=r"\b(?:antwort|wahl|entscheidung)\b[\s*_]*(?:(?:ist|lautet|wäre)\b\s*:?|:)",
        choose=r"\b(?:wähle|nehme|bevorzuge|entscheide\s+mich\s+für)\b",
        denied=r"\b(?:nicht|nie|niemals|weder|ohne|statt|wenn|falls|ob|zwischen|außer)\b",
    ),
    "fr": _brief(
        answer=r"\b(?:réponse|choix|décision)\b[\s*_]*(?:(?:est|serait)\b\s*:?|:)",
        choose=r"\b(?:choisis|choisirais|prends|préfère|opte\s+pour)\b",
        denied=r"\b(?:ne|pas|jamais|ni|sans|plutôt\s+que|si|entre|sauf)\b|\bn['’]",
    ),
    "es": _brief(
        answer=r"\b(?:respuesta|elección|decisión)\b[\s*_]*(?:(?:es|sería)\b\s*:?|:)",
        choose=r"\b(?:elijo|elegiría|escojo|escogería|prefiero|opto\s+por)\b",
        denied=r"\b(?:no|nunca|jamás|ni|sin|en\s+vez\s+de|si|entre|salvo|excepto)\b",
    ),
    "pt": _brief(
        answer=r"\b(?:resposta|escolha|decisão)\b[\s*_]*(?:(?:é|seria)\b\s*:?|:)",
        choose=r"\b(?:escolho|escolheria|prefiro|opto\s+por)\b",
        denied=r"\b(?:não|nunca|jamais|nem|sem|em\s+vez\s+de|se|entre|exceto)\b",
    ),
    "it": _brief(
        answer=r"\b(?:risposta|scelta|decisione)\b[\s*_]*(?:(?:è|sarebbe)\b\s*:?|:)",
        choose=r"\b(?:scelgo|sceglierei|preferisco|opto\s+per)\b",
        denied=r"\b(?:non|mai|né|senza|invece\s+di|se|tra|fra|tranne)\b",
    ),
    "ru": _brief(
        answer=r"\b(?:ответ|выбор|решение)\b[\s*_]*(?:—|–|:)",
        choose=r"\b(?:выбираю|выберу|выбрал|выбрала|предпочитаю)\b",
        denied=r"\b(?:не|никогда|ни|без|вместо|если|между|кроме)\b",
    ),
    "ja": _brief(
        answer=r"(?:答え|回答|解答|選択)(?:は|:)+",
        choose=r"(?!)",
        denied=r"(?:もし|または|ではなく)",
    ),
}
"""By language. A reply is read by the words of the language that was asked in, then by the others': models change language."""
