"""The house rules of docs/architecture.md, read from the source: who may import whom, who reads the environment,
what never unpickles, what stays light. Each rule is a function from source to faults, shown to find one."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "mlflow", "great_expectations")
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
RUNS_SQL = {"execute", "executemany", "fetch", "copy_expert", "copy", "mogrify", "SQL", "adbc_ingest"}


def order_of_stages() -> dict[str, int]:
    """Place of each stage in the order that docs/architecture.md gives."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    line = next(line for line in text.splitlines() if "→ `cli`" in line)
    groups = [re.split(r",\s*", group) for group in re.findall(r"`([^`]+)`", line)]
    return {stage: place for place, group in enumerate(groups) for stage in group}


ORDER = order_of_stages()


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts[:-1])


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported anywhere in a tree, inside functions and by name too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def stage_of(module: str) -> str:
    """``ml.training.ddp`` → ``training``; ``ml`` itself has no stage."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def import_faults(source: str, path: Path) -> list[str]:
    """Imports that go against the flow of data."""
    own = stage_of(module_name(path))
    place = ORDER.get(own, -1)
    faults = [] if not own or own in ORDER else [f"{own} has no place in docs/architecture.md"]
    for line, name in imported(ast.parse(source), package_of(path)):
        top, stage = name.split(".")[0], stage_of(name)
        if top in {"dags", "plugins", "tests", "benchmarks"} or (top == "infra" and own != "cli"):
            faults.append(f"{path}:{line} ml imports {name}")
        elif top == "ml" and stage in ORDER and ORDER[stage] > place:
            faults.append(f"{path}:{line} {own or 'ml'} imports the later {stage}")
        elif top == "ml" and stage not in ORDER and (ROOT / "ml" / stage).exists() and stage:
            faults.append(f"{path}:{line} {name} has no place in docs/architecture.md")
    return faults


def environment_faults(source: str, path: Path) -> list[str]:
    """Reads of the environment. Handing a copy of it on to a child process, and setting a variable, are no reads."""
    tree = ast.parse(source)
    allowed = {id(node) for passed in ast.walk(tree) for node in environments_passed_on(passed)}
    faults = []
    for node in ast.walk(tree):
        read = (
            isinstance(node, ast.Attribute)
            and node.attr in {"environ", "environb", "getenv"}
            and id(node) not in allowed
        )
        name = isinstance(node, ast.ImportFrom) and node.module == "os"
        if read or (name and {alias.name for alias in node.names} & {"environ", "environb", "getenv"}):
            faults.append(f"{path}:{node.lineno} reads the environment; ml.settings does that")
    return faults


def environments_passed_on(node: ast.AST) -> list[ast.AST]:
    """The ``os.environ`` inside ``dict(os.environ)``, ``os.environ.copy()``, ``{**os.environ, …}``, ``os.environ | …``,
    ``os.environ[name] = …``, ``del os.environ[name]`` and ``os.environ.setdefault(…)`` whose answer nobody takes."""
    if isinstance(node, ast.Call) and called(node) == "dict":
        return list(node.args)
    if isinstance(node, ast.Call) and called(node) == "copy" and isinstance(node.func, ast.Attribute):
        return [node.func.value]
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and called(node.value) in {"setdefault", "update"}
    ):
        return [node.value.func.value] if isinstance(node.value.func, ast.Attribute) else []
    if isinstance(node, ast.Dict):
        return [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [node.left, node.right]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return [node.value]
    return []


def unpickling_faults(source: str, path: Path) -> list[str]:
    """Whatever could run code hidden in a file."""
    tree = ast.parse(source)
    faults = [
        f"{path}:{line} imports {name}"
        for line, name in imported(tree, package_of(path))
        if name.split(".")[0] in UNPICKLERS
    ]
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        text = ast.unparse(node.func)
        if text == "torch.load" and given.get("weights_only") is not True:
            faults.append(f"{path}:{node.lineno} torch.load without weights_only=True")
        if given.get("allow_pickle") is True or called(node) in {"read_pickle", "to_pickle"} or text == "torch.save":
            faults.append(f"{path}:{node.lineno} {text} reads or writes pickles")
    return faults


def sql_faults(source: str, path: Path) -> list[str]:
    """Statements that are put together as text where they are run."""
    return [
        f"{path}:{node.lineno} {called(node)} of a statement put together as text"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and called(node) in RUNS_SQL
        for argument in node.args[:2]
        if put_together(argument)
    ]


def put_together(node: ast.AST) -> bool:
    text = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod) and any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )  # fmt: skip
    formatted = isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.FormattedValue) for part in node.values)
    call = isinstance(node, ast.Call) and called(node) == "format" and isinstance(node.func, ast.Attribute)
    return text or formatted or (call and isinstance(node.func.value, ast.Constant))  # type: ignore[union-attr]


Rule = Callable[[str, Path], list[str]]


def check(rule: Rule, files: list[Path]) -> list[str]:
    assert files
    return [fault for path in files for fault in rule(path.read_text(), path)]


def test_data_flows_one_way_and_nothing_in_ml_imports_dags_plugins_or_infra() -> None:
    assert check(import_faults, python_files("ml")) == []


def test_every_stage_has_its_place_in_the_architecture() -> None:
    folders = {path.parent.name for path in (ROOT / "ml").glob("*/__init__.py")}
    assert folders - set(ORDER) == set()
    assert list(ORDER)[-1] == "cli"


@pytest.mark.parametrize(
    ("stage", "source"),
    [
        ("extraction", "from ml.training import pretrain"),
        ("extraction", "def late():\n    import ml.registry.gate"),
        ("common", "from ml import quality"),
        ("sequences/store", "from ... import models"),
        ("sequences", "from ..models import encoder"),
        ("publication", "from importlib import import_module\nimport_module('ml.demo.truth')"),
        ("scoring", "import dags.nightly"),
        ("scoring", "from plugins import review"),
        ("scoring", "from infra.embedded import postgres"),
        ("astrology", "import json"),
    ],
)
def test_an_import_against_the_flow_is_found(stage: str, source: str) -> None:
    assert import_faults(source, ROOT / "ml" / stage / "module.py")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("training/x.py", "from ml.extraction import read_view\nfrom .loop import step\nfrom ml.settings import Role"),
        ("settings.py", "from ml.common.errors import ConfigError"),
        ("common/db.py", "from ml.settings import Role"),
        ("cli.py", "from infra.embedded.commands import app\nfrom ml.demo.commands import app as demo"),
    ],
)
def test_an_import_along_the_flow_is_no_fault(file: str, source: str) -> None:
    assert import_faults(source, ROOT / "ml" / file) == []


def test_settings_alone_reads_the_environment() -> None:
    files = [path for path in python_files("ml") if path != ROOT / "ml" / "settings.py"]
    assert check(environment_faults, files) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nhome = os.environ['VIGIL_HOME']",
        "import os\nhome = os.environ.get('VIGIL_HOME')",
        "import os\nhome = os.getenv('VIGIL_HOME')",
        "from os import environ",
        "import os\nseen = 'CI' in os.environ",
        "import os\nhome = os.environ.setdefault('VIGIL_HOME', '.')",
    ],
)
def test_a_read_of_the_environment_is_found(source: str) -> None:
    assert environment_faults(source, ROOT / "ml" / "x.py")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nrun(env={**os.environ, 'A': '1'})",
        "import os\nrun(env=os.environ.copy())",
        "import os\nrun(env=dict(os.environ))",
        "import os\nrun(env=os.environ | {'A': '1'})",
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'",
        "import os\nos.environ.setdefault('OMP_NUM_THREADS', '1')",
    ],
)
def test_passing_the_environment_on_to_a_child_is_no_fault(source: str) -> None:
    assert environment_faults(source, ROOT / "ml" / "x.py") == []


def test_nothing_unpickles() -> None:
    assert check(unpickling_faults, python_files("ml", "infra", "dags", "plugins")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "torch.save(model, path)",
    ],
)
def test_unpickling_is_found(source: str) -> None:
    assert unpickling_faults(source, ROOT / "ml" / "x.py")
    assert unpickling_faults("torch.load(path, weights_only=True)\nnp.load(path)", ROOT / "ml" / "x.py") == []


def test_no_statement_is_put_together_as_text() -> None:
    assert check(sql_faults, python_files("ml", "infra", "dags", "plugins")) == []


@pytest.mark.parametrize(
    "source",
    [
        "cursor.execute(f'select * from {table}')",
        "fetch(connection, f'select * from {table}')",
        "cursor.execute('select * from ' + table)",
        "cursor.execute('select * from %s' % table)",
        "cursor.execute('select * from {}'.format(table))",
    ],
)
def test_a_statement_put_together_as_text_is_found(source: str) -> None:
    assert sql_faults(source, ROOT / "ml" / "x.py")
    assert sql_faults("cursor.execute(sql.SQL('select {}').format(name), (1,))", ROOT / "ml" / "x.py") == []


def at_import(path: Path) -> list[str]:
    """Modules that a file imports when it is imported itself, whatever stands outside functions."""
    tree = ast.parse(path.read_text())
    names: list[str] = []
    for node in outside_functions(tree):
        names += [name for _, name in imported(ast.Module(body=[node], type_ignores=[]), package_of(path))]
    return names


def outside_functions(tree: ast.AST) -> Iterator[ast.stmt]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from outside_functions(node)


IMPORT_EACH = """
import importlib, sys
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # the last part may be a function
        if not name.startswith(str(error.name)):
            raise
        module, _, attribute = name.rpartition(".")
        getattr(importlib.import_module(module), attribute)
    print(*(f"{{name}} imports {{heavy}}" for heavy in {heavy!r} if heavy in sys.modules), sep="\\n")
"""
HELP = """
import contextlib, io, runpy, sys
sys.argv = ["vigil", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    runpy.run_module("ml.cli", run_name="__main__")
assert "Usage" in shown.getvalue()
print(*(f"--help imports {{heavy}}" for heavy in {heavy!r} if heavy in sys.modules), sep="\\n")
"""


def loaded(code: str, path: Path = ROOT) -> list[str]:
    """What a fresh interpreter says it has loaded."""
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.strip()]


def test_dag_files_and_plugins_stay_light() -> None:
    files = python_files("dags", "plugins")
    names = sorted({name for path in files for name in at_import(path)})
    assert [name for name in names if name.split(".")[0] in HEAVY] == []
    ours = [name for name in names if name.split(".")[0] == "ml"]
    assert ours, "no DAG file imports ml: nothing was looked at"
    assert loaded(IMPORT_EACH.format(names=ours, heavy=HEAVY)) == []


def test_help_stays_light() -> None:
    assert loaded(HELP.format(heavy=HEAVY)) == []


def test_a_heavy_import_is_found_in_each_place(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "__init__.py").write_text("")
    (tmp_path / "ml" / "stage.py").write_text("import torch\ndef work(): ...")
    (tmp_path / "ml" / "cli.py").write_text("import ml.stage\nprint('Usage')")
    names = ["json.dumps", "ml.stage.work"]
    assert loaded(IMPORT_EACH.format(names=names, heavy=HEAVY), tmp_path) == ["ml.stage.work imports torch"]
    assert loaded(HELP.format(heavy=HEAVY), tmp_path) == ["--help imports torch"]


def test_what_a_file_imports_when_imported_is_told_from_what_its_functions_import() -> None:
    source = ROOT / "dags" / "sample.py"
    tree = ast.parse(
        "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    import c\ntry:\n    from d import e\nfinally: ..."
    )
    found = [
        name for node in outside_functions(tree) for _, name in imported(ast.Module([node], []), package_of(source))
    ]
    assert found == ["a", "d.e"]


def test_packages_that_are_installed_are_the_ones_that_are_checked() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert found == ["ml*", "infra*"]
