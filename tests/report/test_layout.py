"""Tables of figures in a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console

from wdct_dist.report.layout import Table, as_rich, least_width


def shown(table: Table, width: int = 80) -> list[str]:
    """The lines that a terminal of `width` columns shows."""
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(as_rich(table))
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def test_title_headings_figures_and_notes_stand_in_their_order() -> None:
    lines = shown(Table("Scores", "checkpoint", ("CS", "n"), (("base", "0.5", "10"), ("tuned", "0.625", "10")), ("CS: a share.",)))
    assert [line.split() for line in lines if "─" not in line] == [
        ["Scores"],
        ["checkpoint", "CS", "n"],
        ["base", "0.5", "10"],
        ["tuned", "0.625", "10"],
        ["CS:", "a", "share."],
    ]
    assert lines[-3].index("0.5") + len("0.5") == lines[-2].index("0.625") + len("0.625"), "figures end in one column"


def test_a_name_that_is_that_of_the_row_above_is_left_blank_and_comes_back_after_another() -> None:
    rows = (("base", "1"), ("base", "2"), ("tuned", "3"), ("base", "4"))
    lines = [line.split() for line in shown(Table("T", "checkpoint", ("x",), rows))]
    assert lines[-4:] == [["base", "1"], ["2"], ["tuned", "3"], ["base", "4"]]


def test_a_long_name_is_folded_and_no_figure_is_cut() -> None:
    name = "org/" + "a-model-with-a-long-name-" * 4 + "end"
    figures = ("0.710 [0.670, 0.750]", "0.830 [0.790, 0.870]", "0.500")
    lines = shown(Table("T", "checkpoint", ("CS", "PCS", "chance"), ((name, *figures),)))
    assert max(map(len, lines)) <= 80
    [first] = [line for line in lines if all(figure in line for figure in figures)]
    below_headings = next(number for number, line in enumerate(lines) if "─" in line) + 1
    folded = [*lines[below_headings : lines.index(first)], first[: first.index(figures[0])]]
    assert len(folded) > 1
    assert "".join(part.strip() for part in folded) == name


def test_names_headings_and_notes_are_text_and_no_markup() -> None:
    lines = shown(Table("T", "[red]", ("[bold]",), (("[link]x[/link]", "1"),), ("[dim]",)))
    text = "\n".join(lines)
    for word in ("[red]", "[bold]", "[link]x[/link]", "[dim]"):
        assert word in text


def test_values_of_settings_are_folded_where_there_are_too_many_for_a_line() -> None:
    many = ", ".join(f"run1/checkpoint-{step}" for step in range(100, 1000, 100))
    lines = shown(Table("T", "setting", ("one", "other"), (("checkpoints", many, "demo"),)))
    assert max(map(len, lines)) <= 80
    assert all(part in "".join(lines) for part in many.split(", "))
    assert any("demo" in line for line in lines)


def test_in_its_least_width_a_table_has_every_figure_and_in_less_it_has_not() -> None:
    table = Table("T", "checkpoint", ("CS [interval]", "label\nmass"), (("a-long-checkpoint-name", "0.710 [0.670, 0.750]", "0.642"),))
    least = least_width(table)
    assert any("0.710 [0.670, 0.750]  0.642" in line for line in shown(table, least))
    assert not any("0.710 [0.670, 0.750]  0.642" in line for line in shown(table, least - 2))
