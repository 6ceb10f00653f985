"""The experiments end to end at scale ``tiny``, on one hospital; what is done is not done again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ml.common.errors import ConfigError
from ml.experiments.run import Name, plan_of, run
from ml.experiments.tables import BEGIN, END, Results, people
from ml.settings import get_settings
from tests.ml.synthetic_log import deployment

Ran = tuple[Results, Path]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A deployment in which all three run."""
    home = tmp_path_factory.mktemp("experiments")
    with deployment(home, threads="1"):
        yield home


@pytest.fixture(scope="module")
def heads(place: Path) -> Ran:
    return run("next-visit-head", "tiny", print)


def cells(folder: Path) -> dict[str, int]:
    """When each cell's file was written."""
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.json")}


def test_the_heads_are_compared_at_every_size_with_both_baselines(heads: Ran) -> None:
    results, folder = heads
    table = {
        name: json.loads((folder / "results.json").read_text())["tables"][name] for name in ("auroc", "without-labels")
    }
    assert [row["labelled"] for row in table["auroc"]] == ["10", "20", "all"]
    models = {"binary", "sum", "mask", "logistic regression", "LightGBM"}
    assert all(models | {"labelled", "repeats"} == set(row) for row in table["auroc"])
    assert all(0 <= row[model]["value"] <= 1 for row in table["auroc"] for model in models)
    assert [row["model"] for row in table["without-labels"]] == ["the oracle", "sum, zero-shot", "mask, zero-shot"]
    rows = list(csv.DictReader((folder / "differences.csv").open()))
    assert {row["difference"] for row in rows} >= {"mask − binary", "sum − binary"}
    ElementTree.fromstring(results.figure)


def test_zero_shot_scores_are_no_constant_and_heads_differ_from_one_another(heads: Ran) -> None:
    import numpy as np

    _, folder = heads
    names = ("sum-zero-shot-n0-r0", "mask-zero-shot-n0-r0", "binary-n20-r0", "sum-n20-r0", "mask-n20-r0")
    scores = [np.load(folder / "cells" / f"pancreatic_cancer_45_plus-{name}.npy")[:, 0] for name in names]
    assert all(np.unique(score).size > 10 for score in scores)
    assert len({score.tobytes() for score in scores}) == len(scores)


def test_only_a_cell_that_is_lost_or_damaged_is_done_again_and_gives_the_same(heads: Ran) -> None:
    results, folder = heads
    lost, damaged = "pancreatic_cancer_45_plus-mask-n10-r1", "pancreatic_cancer_45_plus-lightgbm-n20-r0"
    before = cells(folder)
    (folder / "cells" / f"{lost}.json").unlink()
    scores = folder / "cells" / f"{damaged}.npy"
    scores.write_bytes(scores.read_bytes()[:-4])
    shown, _ = run("next-visit-head", "tiny", print, train=False)
    assert [row[1] for row in shown.tables[0].rows] == [1, 1, 1]  # repeats of all models, of 2, 2 and 1
    assert lost not in cells(folder)
    again, _ = run("next-visit-head", "tiny", print)
    after = cells(folder)
    assert {name for name in after if after[name] != before[name]} == {lost, damaged}
    assert [table.csv() for table in again.tables] == [table.csv() for table in results.tables]


def test_the_gain_of_pretraining_is_measured_on_the_same_hospital(heads: Ran) -> None:
    results, folder = run("pretraining-gain", "tiny", print)
    assert [table.name for table in results.tables] == ["auroc", "differences", "without-labels"]
    assert "from scratch" in results.tables[0].columns
    hospitals = list((get_settings().data_dir / "experiments" / "hospitals").iterdir())
    assert len(hospitals) == 1
    assert (folder / "results.md").read_text().startswith(BEGIN)


def test_the_ladder_has_every_rung_and_its_references(heads: Ran) -> None:
    results, folder = run("core-behrt-ladder", "tiny", print)
    ladder, outcomes = results.tables
    names = [row[0] for row in ladder.rows]
    assert names[:4] == ["logistic regression", "LightGBM", "Med-BERT", "Vigil's night"]
    assert names[4] == "BEHRT (diagnoses)"
    assert names[-1] == "+ BiGRU (CORE-BEHRT)"
    assert len(names) == 4 + 11
    oracle = {row[0]: row[-1] for row in outcomes.rows if row[-1] is not None}
    assert set(oracle) == {row[0] for row in outcomes.rows}
    assert json.loads((folder / "cells" / "oracle-f0.json").read_text())["values"]["fold"] == {}


def test_every_preset_stands_beside_the_others_after_equal_compute(heads: Ran) -> None:
    (table,) = run("presets", "tiny", print)[0].tables
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["preset"] for row in rows] == ["med-bert", "behrt", "core-behrt", "vigil", "night"]
    spent = [row["of them per token"] * row["pretraining tokens"] for row in rows]
    assert max(spent) / min(spent) == pytest.approx(1.0, abs=0.01)
    assert all(0 < row["loss"] < 10 and 0 < row["frequencies"] < 10 for row in rows)
    assert len({row["loss"] for row in rows}) == len({row["AUROC"].value for row in rows}) == 4
    assert rows[3]["loss"] == rows[4]["loss"]  # in one shape, vigil is the night's
    assert rows[-1]["less night's"] is None


def test_a_page_takes_the_results_between_its_marks_and_nothing_else_of_it_changes(heads: Ran, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    heads[0].put_into(page)
    heads[0].put_into(page)
    text = page.read_text()
    assert text.startswith("# Title\n\n" + BEGIN)
    assert text.endswith(END + "\n\nAfter.\n")
    assert "old" not in text
    assert "![Results](page.svg)" in text
    assert (tmp_path / "page.svg").read_bytes() == heads[0].figure
    page.write_text("# No marks\n")
    with pytest.raises(ConfigError, match="no marked part"):
        heads[0].put_into(page)
    assert page.read_text() == "# No marks\n"


def test_no_result_names_a_patient_or_a_small_count(heads: Ran) -> None:
    text = (heads[1] / "results.json").read_text() + (heads[1] / "results.md").read_text()
    assert not re.search(r"subject|person_id", text)
    assert [people(count) for count in (10, 11, 1_234)] == ["fewer than 11", "11", "1,234"]


@pytest.mark.parametrize("name", ["core-behrt-ladder", "next-visit-head", "pretraining-gain", "oracle-gap"])
@pytest.mark.parametrize("scale", ["tiny", "small", "full"])
def test_equal_plans_have_equal_digests_and_any_change_another(name: Name, scale: str) -> None:
    plan = plan_of(name, scale)  # type: ignore[arg-type]
    assert plan.digest == plan_of(name, scale).digest  # type: ignore[arg-type]
    assert plan.digest != replace(plan, seed=1).digest
    assert plan.digest != replace(plan, hospital=replace(plan.hospital, seed=1)).digest
    assert len({cell.name for cell in plan.cells()}) == len(list(plan.cells()))


def test_the_best_model_stands_beside_the_oracle_and_lightgbm_outcome_by_outcome(heads: Ran) -> None:
    results, folder = run("oracle-gap", "tiny", print)
    macro = {row["model"]: row for row in json.loads((folder / "results.json").read_text())["tables"]["macro"]}
    assert set(macro) == {"night", "GRU", "logistic regression", "LightGBM", "the oracle"}
    night, oracle = macro["night"], macro["the oracle"]
    gap = night["macro AUROC"]["value"] - oracle["macro AUROC"]["value"]
    assert night["less the oracle's"]["value"] == pytest.approx(gap)
    assert night["less the oracle's"]["low"] < gap < night["less the oracle's"]["high"]
    assert oracle["less the oracle's"] is None
    outcomes = results.tables[1]
    assert "death 60 plus" in [row[0] for row in outcomes.rows]
    assert all(0 <= row[k] <= 1 for row in outcomes.rows for k in range(2, 7))  # type: ignore[operator]
    ElementTree.fromstring(results.figure)
