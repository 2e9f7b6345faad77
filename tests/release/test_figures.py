"""Figures on the pages: those of the stored runs, none without a source."""

import importlib

import figures
import pytest


def test_tables_are_those_of_the_stored_runs(benchmarks):
    harness = importlib.import_module("harness")
    tables = figures.tables()
    assert len(tables) > 5
    for program, page, report in tables:
        begin = harness.begin_of(program)
        assert f"{begin}\n\n{report}\n{harness.END}" in figures.read(page), program


@pytest.mark.parametrize("entry", figures.LIST["measured"], ids=lambda x: x["text"])
def test_figure_is_that_of_its_source(entry):
    page = figures.read(entry["page"])
    assert entry["text"].count("{}") == len(entry["sources"])
    assert figures.renewed(entry, page) == (page, 1)


@pytest.mark.parametrize("page", figures.PAGES)
def test_every_figure_has_a_source_or_a_reason(page):
    constants = [entry for entry in figures.LIST["constants"] if entry["page"] == page]
    assert all(entry["reason"] for entry in constants)
    listed = [figure for entry in constants for figure in entry["figures"]]
    assert len(listed) == len(set(listed))
    assert figures.unlisted(page) == set(listed)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1.27x, 38 s and 94 %", ["1.27x", "38 s", "94 %"]),
        (
            "1,094 MiB, 236\nGFLOP/s: 16 times",
            ["1,094 MiB", "236\nGFLOP/s", "16 times"],
        ),
        ("accuracy **0.9107**, 52%", ["0.9107", "52%"]),
        ("8x512x512, 2 scores, hw3tf 0.1.0, 0.5", []),
    ],
)
def test_what_is_a_figure(text, found):
    assert figures.FIGURE.findall(text) == found
