"""The charts of an alignment: changed answers, what the trainings logged, and which checkpoint was trained from which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from wdct_dist.report.change import AS_SHOWN, SPLITS
from wdct_dist.report.html.charts import ROW_HEIGHT, Chart, below, colours, params
from wdct_dist.report.html.figures import short_names

if TYPE_CHECKING:
    from wdct_dist.align.produced import Descent

RATES = {"direct_change": "direct", "indirect_change": "indirect"}

LOGGED = {
    "loss": "loss",
    "reward_margin": "reward margin",
    "reward_accuracy": "reward accuracy",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
}
"""Columns of a training's log, and what a reader calls them."""

SHARES, TINY = {"reward_accuracy"}, {"learning_rate"}
"""Columns that are drawn from 0 to 1, and those whose figures are written with an exponent."""

MOST_POINTS = 400
"""Steps of one line that are drawn, evenly spaced: more cannot be told apart."""

ROOT = "not trained here"


def changed_answers(change: pl.DataFrame, asked: Sequence[str]) -> Iterator[Chart]:
    """Direct and indirect change with their intervals, of trained and of held-out items; `change` has the columns of SCORES_CHANGE.

    `asked`: the page's ways of asking; the first of them that has changes is shown first.
    """
    several, both = change["language"].n_unique() > 1, change["target_side"].n_unique() > 1
    names = short_names(change["checkpoint_id"].unique(maintain_order=True).to_list())
    for split in ("train", "held_out"):
        values = [
            {
                "name": names[row["checkpoint_id"]] + " (control)" * row["control"] + (f", {AS_SHOWN[row['target_side']]}" if both else ""),
                "checkpoint": row["checkpoint_id"],
                "asked": f"{row['variant']}, {row['language']}" if several else row["variant"],
                "rate": RATES[row["metric"]],
                **{key: row[key] for key in ("domain", "value", "ci_low", "ci_high", "n", "n_changed")},
            }
            for row in change.filter(pl.col("split") == split, pl.col("metric").is_in(list(RATES))).iter_rows(named=True)
            if row["value"] is not None
        ]
        ways = [way for way in asked if any(one["asked"] == way for one in values)]
        if not ways:
            continue
        base = (
            alt.Chart(alt.InlineData(values=values))
            .transform_filter("datum.domain === domain && datum.asked === asked")
            .encode(
                y=alt.Y("name:N", sort=None, title=None),
                yOffset=alt.YOffset("rate:N", sort=list(RATES.values())),
                color=alt.Color("rate:N", title=None, sort=list(RATES.values()), scale=alt.Scale(range=colours()), legend=below()),
            )
        )
        scale = alt.Scale(domain=[0, 1])
        title = "share of answers"
        interval = base.mark_rule(strokeWidth=2).encode(x=alt.X("ci_low:Q", scale=scale, title=title), x2="ci_high:Q")
        shown = [alt.Tooltip(f"{name}:N") for name in ("checkpoint", "rate", "domain")]
        shown += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "ci_low", "ci_high")]
        shown += [alt.Tooltip(f"{name}:Q", format=",") for name in ("n_changed", "n")]
        point = base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("value:Q", scale=scale, title=title), tooltip=shown)
        num_names = len({one["name"] for one in values})
        text = (
            f"share of changed answers of {SPLITS[split]}, on the aligned side (direct) and on the other one (indirect), with its interval"
        )
        chart = (
            alt.layer(interval, point)
            .add_params(*params(ways))
            .properties(width="container", height=2 * num_names * ROW_HEIGHT, description=text)
        )
        name = f"change-{split.replace('_', '-')}"
        yield Chart(name, f"Changed answers, {SPLITS[split]}", f"{text[0].upper()}{text[1:]}.", chart.to_dict())


def training_curves(training: pl.DataFrame) -> Iterator[Chart]:
    """What each stage logged against its steps, a line a branch; `training` has the columns of `schema.TRAINING`."""
    for stage in training["stage"].unique(maintain_order=True).sort(descending=True):  # sft comes before dpo
        logged = training.filter(stage=stage).sort("branch", "step")
        for column, title in LOGGED.items():
            # what is not finite cannot be drawn, nor stand in JSON
            drawn = logged.filter(pl.col(column).is_finite()).select("branch", "step", "epoch", pl.col(column).alias("value"))
            if drawn.is_empty():
                continue
            longest = max(part.height for part in drawn.partition_by("branch"))
            every = -(-longest // MOST_POINTS)
            thinned = drawn.filter(pl.int_range(pl.len()).over("branch") % every == 0)
            scale = alt.Scale(domain=[0, 1]) if column in SHARES else alt.Scale(zero=False)
            by_branch = alt.Color("branch:N", title=None, scale=alt.Scale(range=colours()), legend=below())
            text = f"{title} of {stage.upper()} against its steps"
            chart = (
                alt.Chart(alt.InlineData(values=thinned.to_dicts()))
                .mark_line(clip=True)
                .encode(
                    x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6)),
                    y=alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, format="~e" if column in TINY else "~g")),
                    color=by_branch,
                    tooltip=[alt.Tooltip("branch:N"), alt.Tooltip("step:Q"), alt.Tooltip("epoch:Q", format=".2f"), alt.Tooltip("value:Q")],
                )
                .properties(width="container", height=180, description=text)
            )
            lost = logged[column].drop_nulls().len() - drawn.height
            said = f"{text[0].upper()}{text[1:]}."
            said += f" Every {every}th step." if every > 1 else ""
            said += f" Left out, since they are not finite: {lost:,}." if lost else ""
            yield Chart(f"log-{stage}-{column.replace('_', '-')}", f"{stage.upper()}: {title}", said, chart.to_dict())


def family_tree(descents: Sequence[Descent]) -> Chart:
    """Which checkpoint was trained from which: a line a checkpoint, below the one that it came from."""
    nodes = _laid_out(descents)
    names = short_names([str(one["checkpoint"]) for one in nodes])
    place = {one["checkpoint"]: one for one in nodes}
    for one in nodes:
        one["name"] = names[str(one["checkpoint"])]
    edges: list[dict[str, Any]] = []
    for one in nodes:
        if (parent := place.get(one["parent"])) is not None:
            edges.append({"row": one["row"], "to_row": one["row"], "depth": parent["depth"], "to_depth": one["depth"]})
            edges.append({"row": parent["row"], "to_row": one["row"], "depth": parent["depth"], "to_depth": parent["depth"]})
    stages = list(dict.fromkeys(str(one["stage"]) for one in nodes))
    rows = alt.Scale(domain=[-0.5, len(nodes) - 0.5], reverse=True, nice=False)
    deepest = max(one["depth"] for one in nodes)
    # what is right of the last generation has room for its names
    across = alt.Scale(domain=[-0.15, 2.2 * deepest + 0.5], nice=False)
    lines = alt.Chart(alt.InlineData(values=edges)).mark_rule(color="var(--muted)")
    lines = lines.encode(
        x=alt.X("depth:Q", scale=across, axis=None), x2="to_depth:Q", y=alt.Y("row:Q", scale=rows, axis=None), y2="to_row:Q"
    )
    base = alt.Chart(alt.InlineData(values=nodes)).encode(
        x=alt.X("depth:Q", scale=across, axis=None), y=alt.Y("row:Q", scale=rows, axis=None)
    )
    shown = [alt.Tooltip(f"{name}:N") for name in ("checkpoint", "stage", "epoch", "parent")]
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        color=alt.Color("stage:N", title=None, sort=stages, scale=alt.Scale(domain=stages, range=colours()), legend=below()), tooltip=shown
    )
    texts = base.mark_text(align="left", dx=10, color="var(--ink)", fontSize=12).encode(text="name:N", tooltip=shown)
    text = "which checkpoint was trained from which, by which stage"
    chart = alt.layer(lines, points, texts).properties(width="container", height=len(nodes) * ROW_HEIGHT, description=text)
    return Chart("family-tree", "Where the checkpoints come from", f"{text[0].upper()}{text[1:]}.", chart.to_dict())


def _laid_out(descents: Sequence[Descent]) -> list[dict[str, Any]]:
    """Each checkpoint with its row, depth and parent: children stand below their parent, one generation to the right."""
    made = {one.child: one for one in descents}
    children: dict[str, list[str]] = {}
    for one in descents:
        children.setdefault(one.parent, []).append(one.child)
    nodes: list[dict[str, Any]] = []

    def place(name: str, depth: int, above: frozenset[str]) -> None:
        descent = made.get(name)
        nodes.append(
            {
                "checkpoint": name,
                "parent": None if descent is None else descent.parent,
                "stage": ROOT if descent is None else descent.stage,
                "epoch": None if descent is None else descent.epoch,
                "depth": depth,
                "row": len(nodes),
            }
        )
        for child in children.get(name, []):
            if child not in above:  # a record that names itself its parent would go on for ever
                place(child, depth + 1, above | {child})

    for name in dict.fromkeys(one.parent for one in descents):
        if name not in made:
            place(name, 0, frozenset({name}))
    return nodes
