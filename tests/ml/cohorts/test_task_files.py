"""The task files: each can be read by Vigil and by ACES itself, and names codes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from ml.cohorts import CORE_BEHRT, Task, load_task, task_names, tasks_of
from ml.common.errors import ConfigError
from ml.sources.mapping import icd9_to_icd10

TASKS = [load_task(name) for name in task_names()]
STROKE = load_task("stroke").path.read_text()


def each_task(function):  # type: ignore[no-untyped-def]
    return pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)(function)


@each_task
def test_aces_reads_every_file(task: Task) -> None:
    from aces.config import TaskExtractorConfig

    config = TaskExtractorConfig.load(task.path)
    assert config.trigger.predicate == "index_day"
    assert config.label_window == "target"
    assert config.index_timestamp_window in config.windows


@each_task
def test_every_file_says_where_its_definition_comes_from_and_for_whom_it_holds(task: Task) -> None:
    metadata = yaml.safe_load(task.path.read_text())["metadata"]
    assert {"source", "minimum_age", "look_back_days", "minimum_history_days"} <= set(metadata)
    assert task.scope.source
    assert task.description != task.name


def test_the_experiment_of_core_behrt_has_its_25_tasks() -> None:
    assert tasks_of(CORE_BEHRT) == (
        *("alzheimers_disease", "anaphylaxis", "arrhythmia", "basal_cell_carcinoma", "breast_cancer", "colon_cancer"),
        *("death_60_plus", "depression", "diabetes", "diarrhoea", "fetal_growth_restriction", "infection"),
        *("large_fetus", "lung_cancer", "major_bleeding", "myocardial_infarction", "osteonecrosis"),
        *("pain_treatment", "pancreatic_cancer", "placental_insufficiency", "pneumonia", "preterm_birth"),
        *("schizophrenia", "sleep_disorder", "stroke"),
    )


def branches(pattern: str) -> list[str]:
    """The alternatives of a regular expression, groups multiplied out: ``^(a|b)c`` gives ``^ac``, ``^bc``."""
    depth, parts, begin = 0, [], 0
    for place, letter in enumerate(pattern):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and not depth:
            parts.append(pattern[begin:place])
            begin = place + 1
    parts.append(pattern[begin:])
    if len(parts) > 1:
        return [one for part in parts for one in branches(part)]
    if "(" not in pattern:
        return [pattern]
    opened = pattern.index("(")
    depth = closed = 0
    for closed in range(opened, len(pattern)):
        depth += (pattern[closed] == "(") - (pattern[closed] == ")")
        if not depth:
            break
    inside = branches(pattern[opened + 1 : closed].removeprefix("?:"))
    return [one for part in inside for one in branches(pattern[:opened] + part + pattern[closed + 1 :])]


def test_the_alternatives_of_a_pattern_are_multiplied_out() -> None:
    assert branches("^(a|b(c|d))e|f") == ["^ae", "^bce", "^bde", "f"]


@pytest.fixture(scope="module")
def known() -> pl.Series:
    """All ICD-10-CM codes, and the ICD-9-CM codes that the GEMs know, as events have them."""
    import simple_icd_10_cm

    dotted = [f"{code[:3]}.{code[3:]}" if len(code) > 3 else code for code in icd9_to_icd10().targets]
    codes = [f"ICD10CM//{code}" for code in simple_icd_10_cm.get_all_codes(True)]
    return pl.Series(codes + [f"ICD9CM//{code}" for code in dotted])


NOT_IN_ICD10CM = {"ICD10CM//F00", "ICD10CM//O81", "ICD10CM//O83", "ICD10CM//O84", "ICD10CM//E12"}  # ICD-10 alone


@each_task
def test_every_alternative_of_a_diagnosis_is_a_code_that_exists(task: Task, known: pl.Series) -> None:
    predicates = [task.target, *(condition.predicate for condition in task.past)]
    for pattern in {plain.pattern for predicate in predicates for plain in predicate.any_of}:
        for branch in branches(pattern):
            if re.match(r"\^ICD(9|10)CM//", branch):
                assert known.str.contains(branch).any() or branch.lstrip("^") in NOT_IN_ICD10CM, branch


@pytest.mark.parametrize(
    ("name", "hits", "misses"),
    [
        ("alzheimers_disease", "ICD10CM//G30.9 ICD10CM//F00.1 ICD9CM//331.0", "ICD10CM//G31.0 ICD10CM//F03.90"),
        ("anaphylaxis", "ICD10CM//T78.2XXA ICD10CM//T80.52XA ICD9CM//995.60", "ICD10CM//T78.1XXA ICD10CM//T88.7XXA"),
        ("arrhythmia", "ICD10CM//I48.91 ICD10CM//I44.2 ICD9CM//427.31", "ICD10CM//I46.9 ICD10CM//I44.7 ICD9CM//427.5"),
        ("basal_cell_carcinoma", "ICD10CM//C44.91 ICD9CM//173.31", "ICD10CM//C43.9 ICD10CM//D04.9"),
        ("breast_cancer", "ICD10CM//C50.911 ICD9CM//174.9", "ICD10CM//D05.10 ICD9CM//175.9"),
        ("colon_cancer", "ICD10CM//C18.7 ICD9CM//153.3", "ICD10CM//C20 ICD10CM//C19"),
        ("depression", "ICD10CM//F32.9 ICD10CM//F34.1 ICD9CM//311", "ICD10CM//F31.9 ICD9CM//296.40"),
        ("diabetes", "ICD10CM//E10.9 ICD10CM//E11.9 ICD9CM//250.01", "ICD10CM//R73.03 ICD10CM//O24.410 ICD10CM//E16.2"),
        ("diarrhoea", "ICD10CM//K52.9 ICD10CM//K52.1 ATC//A07DA03", "ICD10CM//K52.0 ATC//A07EC02 ICD10CM//A09"),
        ("fetal_growth_restriction", "ICD10CM//O36.5910 ICD10CM//O36.5190", "ICD10CM//O36.6110"),
        (
            "heart_failure_in_diabetes",
            "ICD10CM//I11.0 ICD9CM//404.03 ICD10CM//I97.130",
            "ICD10CM//I11.9 ICD10CM//I13.10",
        ),
        ("infection", "ICD10CM//A41.9 ICD10CM//J18.9 ICD10CM//N39.0 ICD9CM//038.9", "ICD10CM//N39.3 ICD10CM//B95.0"),
        ("large_fetus", "ICD10CM//O36.60X0 ICD9CM//656.61", "ICD10CM//O36.5910"),
        ("lung_cancer", "ICD10CM//C34.90 ICD9CM//162.9", "ICD10CM//C33 ICD9CM//162.0"),
        ("major_bleeding", "ICD10CM//K92.2 ICD10CM//I61.9 ICD10CM//K29.01", "ICD10CM//K25.1 ICD10CM//K29.00"),
        ("myocardial_infarction", "ICD10CM//I21.4 ICD10CM//I22.9 ICD9CM//410.71", "ICD10CM//I25.2 ICD9CM//412"),
        ("osteonecrosis", "ICD10CM//M87.051 ICD9CM//733.42", "ICD10CM//M86.9"),
        ("pain_treatment", "ATC//N02AA01 ATC//N02BE01 ATC//M02AA15", "ATC//N02CC01 ATC//M01AE01"),
        ("pancreatic_cancer", "ICD10CM//C25.9 ICD9CM//157.9", "ICD10CM//D13.6"),
        ("placental_insufficiency", "ICD10CM//O36.5110", "ICD10CM//O36.5910"),
        ("pneumonia", "ICD10CM//J18.9 ICD9CM//486", "ICD10CM//J20.9 ICD9CM//487.1 ICD9CM//490"),
        ("preterm_birth", "ICD10CM//O60.14X0 ICD9CM//644.21", "ICD10CM//O48.0 ICD9CM//644.13"),
        ("readmission", "VISIT//inpatient VISIT//emergency_inpatient", "VISIT//emergency VISIT//outpatient"),
        ("schizophrenia", "ICD10CM//F20.9 ICD9CM//295.30", "ICD10CM//F25.9 ICD9CM//295.70"),
        ("sleep_disorder", "ICD10CM//G47.33 ICD10CM//F51.01 ATC//N05CF01", "ATC//N05BA06 ICD10CM//G43.909"),
        ("pancreatic_cancer_45_plus", "ICD10CM//C25.0", "ICD10CM//C24.0"),
    ],
)
def test_the_codes_of_an_outcome(name: str, hits: str, misses: str) -> None:
    outcome = load_task(name).outcome
    assert pl.Series(hits.split()).str.contains(outcome).all()
    assert not pl.Series(misses.split()).str.contains(outcome).any()


def test_another_cancer_before_pancreatic_cancer_is_one_of_another_organ() -> None:
    other = next(one for one in load_task("pancreatic_cancer_45_plus").past if one.window == "no_other_cancer")
    pattern = other.predicate.pattern
    assert not pl.Series(["ICD10CM//C25.9", "ICD9CM//157.0", "ICD10CM//D12.0"]).str.contains(pattern).any()
    codes = ["ICD10CM//C18.7", "ICD10CM//C20", "ICD10CM//C50.9", "ICD10CM//C91.0", "ICD9CM//153.3", "ICD9CM//174.9"]
    assert pl.Series(codes).str.contains(pattern).all()


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("trigger: index_day", "trigger: outcome", "trigger must be a predicate of the code VIGIL//INDEX_DAY"),
        ("    label: outcome\n", "", "exactly one window must have a label"),
        ("label: outcome", "label: gout", "window 'target' names the predicate 'gout', which is not defined"),
        ("start + 365d", "start + 1y", r"the end of window 'target' must be start \+ Nd"),
        ("start + 365d", "null", r"the end of window 'target' must be start \+ Nd"),
        ("    start: null", "    start: end - 1y", "the start of window 'history' must be null or 'end - Nd'"),
        ("    end: trigger", "    end: trigger - 1d", "window 'history' must end at 'trigger'"),
        ("    start: trigger", "    start: history.end", "window 'history' must start at 'trigger'"),
        ("    start: trigger", "    start: trigger - 1d", "the label's window must start at 'trigger'"),
        ("end_inclusive: false", "end_inclusive: true", "must have start_inclusive: true and end_inclusive: false"),
        ('"(None, 0)"', '"none"', "'none' in window 'history' is no range"),
        ("    index_timestamp: end\n", "", "exactly one window must have an index_timestamp"),
        ("    index_timestamp: end\n", "    index_timestamp: start\n", "names its edge at 'trigger'"),
        ("{regex: '^(ICD10CM", "{regex: '^((ICD10CM", "the regex of predicate 'outcome' is none that polars knows"),
        ("{regex: '^(ICD10CM", "{regex: '(?!x)^(ICD10CM", "is none that polars knows"),
        ("{regex:", "{pattern:", "the code of predicate 'outcome' must be a code"),
        ("  outcome: {code:", "  outcome: {icd:", "predicate 'outcome' must have a code"),
        (
            "trigger: index_day",
            "  two: {expr: 'and(outcome, index_day)'}\ntrigger: index_day",
            r"'or\(…\)' of",
        ),
        ("    label: outcome", '    label: outcome\n    has: {outcome: "(1, 1)"}', "it can have no 'has'"),
        ("    label: outcome", "    label: outcome\n    lable: outcome", "unknown key 'lable' in window 'target'"),
        ("description:", "horizon: 365\ndescription:", "unknown key 'horizon'"),
        ("  minimum_age: 18", "  minimum_age: -1", "'minimum_age' in metadata must be a whole number, 0 or more"),
        ("  minimum_age: 18", "  minimum_age: true", "'minimum_age' in metadata must be a whole number"),
        ("  minimum_age: 18", "  maximum_age: 18", "'maximum_age' in metadata is none of minimum_age"),
        ("collections: [core_behrt]", "collections: core_behrt", "'collections' in metadata must be a list of texts"),
        ("predicates:", "predicates: 7\nother:", "unknown key 'other'"),
        (STROKE, "7", "'predicates' must be a mapping"),
        (STROKE, "a: [", "it is no ACES task"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_place(tmp_path: Path, old: str, new: str, cause: str) -> None:
    assert old in STROKE
    (tmp_path / "odd.yaml").write_text(STROKE.replace(old, new))
    with pytest.raises(ConfigError, match=cause) as caught:
        load_task("odd", tmp_path)
    assert "odd.yaml" in caught.value.cause
    assert "\n" not in str(caught.value)
