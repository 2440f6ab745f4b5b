"""The charts of the page as Vega-Lite, and the JavaScript that draws them: the home of Altair and vl-convert.

Charts of the summary's figures read them from the data set `figures` of the page, so that they are embedded once. Colours are the
page's own (`var(--…)`, see style.css), so that charts follow the reader's light or dark theme and print dark on white.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt
import vl_convert

from wdct_dist.cache import cache_root
from wdct_dist.errors import StorageError
from wdct_dist.report.html.figures import short_names
from wdct_dist.report.timeline import STATES, Session
from wdct_dist.tables.storage import Store

if TYPE_CHECKING:
    import polars as pl

FIGURES = alt.NamedData("figures")
ROW_HEIGHT = 20
"""Pixels of a row of names. (Vega-Lite's own steps warn in the console where a chart is as wide as the page gives room.)"""

BELOW, CHANCE, ABOVE = "#b35806", "#f4f4f4", "#2166ac"
"""Colours of the heat map: nothing is told apart by red and green."""

FEWEST_IN_A_MAP = 4
"""Checkpoints; the differences of fewer are read more easily in the table."""

MOST_SPANS = 3000
MOST_ENGINES = 64
ROOM_OF_A_NUMBER = 0.06
"""Share of the timeline that a session's number needs."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the page."""

    name: str
    """Its id in the page."""
    title: str
    text: str
    """What it shows, for those who cannot see it, and under it."""
    spec: Mapping[str, Any]
    """Vega-Lite; `domain`, `asked`, `checkpoint` and `group` in its parameters are set by the page's controls."""

    @property
    def signals(self) -> list[str]:
        """Parameters that the page's controls may set."""
        return [one["name"] for one in self.spec.get("params", []) if "value" in one and "name" in one]


@cache
def javascript() -> str:
    """Vega, Vega-Lite and vega-embed in the versions that Altair writes for, as one script that sets `vegaEmbed`.

    What would end or change the script element that it stands in is spelled in another way with the same meaning.
    vl-convert takes 1.2 s to make it, so it is kept in <cache>/vega.
    """
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    kept, name = Store(str(cache_root() / "vega")), f"{version}-vl-convert-{installed('vl-convert-python')}.js"
    with contextlib.suppress(OSError, StorageError):
        return kept.read(name).decode()
    # vl-convert 1.9's stub wants a snippet, which the library does not: it has one of its own that sets `vegaEmbed`
    script = str(vl_convert.javascript_bundle(vl_version=version))  # type: ignore[call-arg]
    script = re.sub(r"<(?=/script|script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
    with contextlib.suppress(OSError, StorageError):  # a cache that cannot be written costs time, not the page
        Path(kept.path("")).mkdir(parents=True, exist_ok=True)
        kept.write(name, script.encode())
    return script


def consistency(metric: str, asked: Sequence[str], num_names: int) -> Chart:
    """CS or PCS of each of `num_names` checkpoints with its interval; with CS the chance level."""
    base = _figures(metric, asked).transform_filter("datum.domain === domain")
    names = alt.Y("name:N", sort=None, title=None)
    scale = alt.Scale(domain=[0, 1])
    interval = base.mark_rule(color="var(--c1)", strokeWidth=2).encode(
        y=names, x=alt.X("low:Q", scale=scale, title=metric.upper(), axis=alt.Axis(tickCount=5)), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=60, color="var(--c1)", opacity=1).encode(
        y=names, x=alt.X("value:Q", scale=scale), tooltip=_tooltip()
    )
    layers: list[alt.Chart] = [interval, point]
    text = f"{metric.upper()} of each checkpoint as a dot, its interval as a line"
    if metric == "cs":
        layers.insert(0, base.mark_tick(color="var(--muted)", thickness=2).encode(y=names, x=alt.X("chance:Q", scale=scale)))
        text += ", the chance level as a grey bar"
    chart = alt.layer(*layers).add_params(*params(asked)).properties(width="container", height=num_names * ROW_HEIGHT)
    return Chart(f"{metric}-chart", f"{metric.upper()} by checkpoint", f"{text}.", chart.properties(description=text).to_dict())


def heat_map(domains: Sequence[str], asked: Sequence[str], num_names: int, chance: float) -> Chart:
    """CS by checkpoint and domain; the middle colour is the chance level (the mean over all items)."""
    base = _figures("cs", asked).encode(
        x=alt.X("domain:N", sort=list(domains), title=None, axis=alt.Axis(orient="top")),
        y=alt.Y("name:N", sort=None, title=None),
    )
    colour = alt.Color(
        "value:Q", scale=alt.Scale(domain=[0, chance, 1], range=[BELOW, CHANCE, ABOVE]), legend=alt.Legend(title="CS", orient="bottom")
    )
    cells = base.mark_rect().encode(color=colour, tooltip=_tooltip())
    # white letters on the ends of the scale, black ones elsewhere: a contrast of at least 4.5
    ends = f"datum.value > {chance + 0.8 * (1 - chance)} || datum.value < {0.2 * chance}"
    numbers = base.mark_text().encode(
        text=alt.Text("value:Q", format=".2f"), color=alt.condition(ends, alt.value("#fff"), alt.value("#111"))
    )
    text = f"CS by checkpoint and domain; blue is above the chance level of {chance:.2f}, brown below it, white at it"
    chart = alt.layer(cells, numbers).add_params(asked_param(asked)).properties(width="container", height=num_names * ROW_HEIGHT)
    return Chart("heat-map", "CS by checkpoint and domain", f"{text}.", chart.properties(description=text).to_dict())


def over_training(metric: str, asked: Sequence[str]) -> Chart:
    """CS or PCS against the step that a checkpoint's name tells."""
    base = (
        _figures(metric, asked)
        .transform_filter("datum.domain === domain && isValid(datum.step)")
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6)),
            color=alt.Color("series:N", title=None, scale=alt.Scale(range=colours()), legend=below()),
        )
    )
    value = alt.Y("value:Q", title=metric.upper(), scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", scale=alt.Scale(zero=False), title=metric.upper()), y2="high:Q")
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(y=value, tooltip=[*_tooltip(), alt.Tooltip("step:Q")])
    text = f"{metric.upper()} against the step that a checkpoint's name tells, with its interval"
    chart = alt.layer(band, line).add_params(*params(asked)).properties(width="container", height=260)
    return Chart(f"{metric}-training", f"{metric.upper()} over training", f"{text}.", chart.properties(description=text).to_dict())


def words_against_deeds(
    groups: Sequence[Mapping[str, Any]], checkpoints: Sequence[str], domains: Sequence[str], asked: Sequence[str]
) -> Chart:
    """Each item's first option, as probable as it is in words and in deeds; one of `checkpoints` at a time, the first to begin with.

    `groups`: each `checkpoint_id`, `asked` and `domain`, with the lists `item_id`, `word` and `deed`.
    """
    scale = alt.Scale(domain=[0, 1], nice=False)
    base = (
        alt.Chart(alt.InlineData(values=groups))
        .transform_filter("datum.checkpoint_id === checkpoint && datum.asked === asked && (domain === 'all' || datum.domain === domain)")
        .transform_flatten(["item_id", "word", "deed"])
    )
    points = base.mark_point(filled=True, size=36, opacity=0.7).encode(
        x=alt.X("word:Q", scale=scale, title="probability in words"),
        y=alt.Y("deed:Q", scale=scale, title="probability in deeds"),
        color=alt.Color("domain:N", title=None, scale=alt.Scale(domain=list(domains), range=colours()), legend=below()),
        shape=alt.Shape("domain:N", title=None, scale=alt.Scale(domain=list(domains)), legend=below()),
        tooltip=[alt.Tooltip("item_id:N"), alt.Tooltip("domain:N"), alt.Tooltip("word:Q"), alt.Tooltip("deed:Q")],
    )
    corners = [{"word": 0, "deed": 0, "to_word": 1, "to_deed": 1}]
    lines = [{"word": 0.5, "deed": 0, "to_word": 0.5, "to_deed": 1}, {"word": 0, "deed": 0.5, "to_word": 1, "to_deed": 0.5}]
    ends = {"x": "word:Q", "x2": "to_word:Q", "y": "deed:Q", "y2": "to_deed:Q"}
    diagonal = alt.Chart(alt.InlineData(values=corners)).mark_rule(color="var(--muted)", strokeDash=[4, 4]).encode(**ends)
    middle = alt.Chart(alt.InlineData(values=lines)).mark_rule(color="var(--muted)").encode(**ends)
    text = (
        "each dot is an item: how probable its first option is in words and in deeds. On the dashed line both are the same; "
        "of two options, dots in the upper left and the lower right quarter have other words than deeds"
    )
    chart = (
        alt.layer(middle, diagonal, points)
        .add_params(*params(asked), alt.param(name="checkpoint", value=checkpoints[0]))
        .properties(width="container", height=360, description=text)
    )
    return Chart("words-deeds", "P(first option) of each item", f"{text[0].upper()}{text[1:]}.", chart.to_dict())


def differences_map(differences: pl.DataFrame, asked: Sequence[str]) -> Chart | None:
    """Paired differences in CS of all pairs of checkpoints; None where there are fewer than `FEWEST_IN_A_MAP` checkpoints.

    `differences` has the columns of SCORES_DIFFERENCES.
    """
    rows = differences.filter(kind="checkpoint", domain="all", metric="cs").drop_nulls("difference").to_dicts()
    several = len({row["language"] for row in rows}) > 1
    checkpoints = list(dict.fromkeys([*(row["left"] for row in rows), *(row["right"] for row in rows)]))
    if len(checkpoints) < FEWEST_IN_A_MAP:
        return None
    names = short_names(checkpoints)
    values = [
        {
            "left": names[row["left"]],
            "right": names[row["right"]],
            "asked": f"{row['variant']}, {row['language']}" if several else row["variant"],
            **{key: row[key] for key in ("difference", "ci_low", "ci_high", "p_holm", "below_noise")},
            "apart": row["ci_low"] is not None and (row["ci_low"] > 0 or row["ci_high"] < 0),
        }
        for row in rows
    ]
    most = max(abs(row["difference"]) for row in rows) or 1.0
    order = [names[name] for name in checkpoints]
    base = (
        alt.Chart(alt.InlineData(values=values))
        .transform_filter("datum.asked === asked")
        .encode(x=alt.X("right:N", sort=order, title="less"), y=alt.Y("left:N", sort=order, title="CS of"))
    )
    colour = alt.Color(
        "difference:Q",
        scale=alt.Scale(domain=[-most, 0, most], range=[BELOW, CHANCE, ABOVE]),
        legend=alt.Legend(title="difference", orient="bottom", format="+.2f"),
    )
    shown = [alt.Tooltip(f"{name}:N") for name in ("left", "right", "below_noise")]
    shown += [alt.Tooltip(f"{name}:Q", format=form) for name, form in (("difference", "+.3f"), ("ci_low", "+.3f"), ("ci_high", "+.3f"))]
    cells = base.mark_rect().encode(color=colour, tooltip=[*shown, alt.Tooltip("p_holm:Q", format=".3g")])
    marks = base.transform_filter("datum.apart").mark_point(filled=True, size=12, color="#111", opacity=1).encode()
    text = "CS of the checkpoint on the left less that of the one below, on the same items; a dot where the interval leaves 0 out"
    chart = (
        alt.layer(cells, marks)
        .add_params(asked_param(asked))
        .properties(width="container", height=len(order) * ROW_HEIGHT, description=text)
    )
    return Chart("differences-map", "CS of each checkpoint less that of each other", f"{text}.", chart.to_dict())


def marginal_effects(effects: pl.DataFrame) -> tuple[Chart, list[str]] | None:
    """How CS and PCS move with each factor, and the groups (checkpoint, language, family) to choose from; None where there are none.

    `effects` has the columns of SCORES_EFFECTS.
    """
    values = [
        {
            "group": ", ".join((row["checkpoint_id"], row["language"], row["family"])),
            "level": f"{row['factor']}={row['factor_level']}",
            "metric": row["metric"].upper(),
            **{key: row[key] for key in ("value", "effect", "ci_low", "ci_high", "n")},
        }
        for row in effects.filter(domain="all").iter_rows(named=True)
        if row["metric"] in ("cs", "pcs") and row["effect"] is not None
    ]
    if not values:
        return None
    groups = list(dict.fromkeys(str(one["group"]) for one in values))
    num_levels = len({one["level"] for one in values})
    metrics = alt.Color("metric:N", title=None, scale=alt.Scale(range=colours()), legend=below())
    base = (
        alt.Chart(alt.InlineData(values=values))
        .transform_filter("datum.group === group")
        .encode(y=alt.Y("level:N", sort=None, title=None), yOffset="metric:N", color=metrics)
    )
    interval = base.mark_rule(strokeWidth=2).encode(x=alt.X("ci_low:Q", title="effect"), x2="ci_high:Q")
    shown = [
        alt.Tooltip(f"{name}:{kind}")
        for name, kind in (("level", "N"), ("value", "Q"), ("effect", "Q"), ("ci_low", "Q"), ("ci_high", "Q"), ("n", "Q"))
    ]
    point = base.mark_point(filled=True, size=60, opacity=1).encode(x="effect:Q", tooltip=shown)
    zero = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color="var(--muted)", strokeDash=[4, 4]).encode(x=alt.datum(0))
    text = "effect of each level of each factor on CS and PCS, from the mean over the factor's levels, with its interval"
    chart = (
        alt.layer(zero, interval, point)
        .add_params(alt.param(name="group", value=groups[0]))
        .properties(width="container", height=2 * num_levels * ROW_HEIGHT, description=text)
    )
    return Chart("effects-chart", "What each factor does", f"{text[0].upper()}{text[1:]}.", chart.to_dict()), groups


def timeline(worked: Sequence[Session]) -> Chart:
    """What each engine did when in all sessions, one after another, without the time between them; `worked` as `sessions` returns it."""
    begins = list(itertools.accumulate((session.seconds for session in worked), initial=0.0))
    whole_s = begins[-1]
    spans = [
        {**asdict(span), "session": session.number, "from_s": begin + span.start_s, "to_s": begin + span.end_s}
        for session, begin in zip(worked, begins, strict=False)
        for span in session.drawn(whole_s)
        if span.engine < MOST_ENGINES
    ]
    left_out = max(0, len(spans) - MOST_SPANS)
    spans = sorted(spans, key=lambda span: span["from_s"] - span["to_s"])[:MOST_SPANS]
    spans.sort(key=lambda span: (span["engine"], span["from_s"]))
    scale = alt.Scale(domain=list(STATES), range=["var(--c2)", "var(--c3)", "var(--c1)", "var(--faint)"])
    text = "what each engine did when: loading a checkpoint, swapping to it, evaluating, or idle"
    across = alt.Scale(domain=[0, whole_s], nice=False)
    title = "seconds since the session began" if len(worked) == 1 else "seconds of all sessions"
    shown = ["session:O", "engine:O", "state:N", "checkpoint_id:N", "start_s:Q", "end_s:Q"]
    bars = (
        alt.Chart(alt.InlineData(values=spans))
        .mark_bar(height={"band": 0.8})
        .encode(
            x=alt.X("from_s:Q", title=title, scale=across, axis=alt.Axis(tickCount=6)),
            x2="to_s:Q",
            y=alt.Y("engine:O", title="engine"),
            color=alt.Color("state:N", title=None, scale=scale, legend=below()),
            tooltip=[alt.Tooltip(name) for name in shown],
        )
    )
    chart = alt.layer(bars, *_session_marks(worked, begins)) if len(worked) > 1 else bars
    if len(worked) > 1:
        text += f"; a dashed line is where a session begins, the time between the {len(worked):,} sessions is left out"
    height = max(2, len({span["engine"] for span in spans})) * ROW_HEIGHT
    spec = chart.properties(width="container", height=height, description=text).to_dict()
    said = f"{text[0].upper()}{text[1:]}."
    if left_out:
        said += f" The {left_out:,} shortest spans are left out."
    if any(span.engine >= MOST_ENGINES for session in worked for span in session.spans):
        said += f" The first {MOST_ENGINES} engines are shown."
    return Chart("timeline", "Engines", said, spec)


def _session_marks(worked: Sequence[Session], begins: Sequence[float]) -> Iterator[alt.Chart]:
    """A line where each session begins, and above it its number where that has room."""
    values, free_at = [], 0.0
    for session, begin in zip(worked, begins, strict=False):
        has_room = begin >= free_at
        free_at = begin + begins[-1] * ROOM_OF_A_NUMBER if has_room else free_at
        values.append(
            {"from_s": begin, "number": str(session.number) if has_room else "", "session": session.number, "begun": session.begun}
        )
    base = alt.Chart(alt.InlineData(values=values)).encode(x="from_s:Q", tooltip=[alt.Tooltip("session:O"), alt.Tooltip("begun:N")])
    yield base.mark_rule(color="var(--ink)", strokeDash=[4, 3], strokeWidth=1.5)
    yield base.mark_text(align="left", baseline="bottom", color="var(--ink)", fontSize=12).encode(text="number:N", y=alt.value(-3))


def _figures(metric: str, asked: Sequence[str]) -> alt.Chart:
    chart = alt.Chart(FIGURES).transform_filter(f"datum.metric === '{metric}'")
    return chart.transform_filter("datum.asked === asked") if asked else chart


def params(asked: Sequence[str]) -> list[alt.Parameter]:
    """What the page's choices of a domain and of a way of asking set."""
    return [alt.param(name="domain", value="all"), asked_param(asked)]


def asked_param(asked: Sequence[str]) -> alt.Parameter:
    """What the page's choice of a way of asking sets."""
    return alt.param(name="asked", value=asked[0])


def _tooltip() -> list[alt.Tooltip]:
    shown = [alt.Tooltip(f"{name}:N") for name in ("checkpoint", "asked", "domain")]
    return shown + [
        alt.Tooltip(f"{name}:Q", format=form) for name, form in (("value", ".3f"), ("low", ".3f"), ("high", ".3f"), ("items", ","))
    ]


def below() -> alt.Legend:
    """A legend under its chart, which is as wide as the page gives room."""
    return alt.Legend(orient="bottom", columns=2, labelLimit=260, symbolOpacity=1)


def colours() -> list[str]:
    """The page's own, see style.css."""
    return [f"var(--c{number})" for number in range(1, 7)]
