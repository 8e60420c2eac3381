"""Limits that keep files readable, and calls that are not made here, each with its replacement."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.source import PACKAGES, ROOT, SourceFile, read_sources

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
LINE_LENGTH_MAX = 100
#: Words that say nothing about what a thing is for.
EMPTY_NOUNS = {"manager", "helper", "helpers", "util", "utils", "base", "handler", "processor"}
#: Where a person reads what is printed.
PRINTERS = ("harmonia_serve/cli/", "examples/", "benchmarks/", "tests/")
_PRAGMA = re.compile(r"\s*#\s*(type: ignore|noqa).*$")
_UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
_OWN_PATH = re.compile(
    r"\b(?:harmonia_actors|harmonia_serve|persistence|tests|examples|benchmarks)(?:/[\w.-]+)+"
)

Finding = tuple[ast.AST, str]


def functions(source: SourceFile) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(source.tree) if isinstance(node, _FUNCTION))


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{source.path}:{node.lineno} {node.name} has {length} lines"
        for source in read_sources()
        for node in functions(source)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_files_have_one_subject() -> None:
    long = [
        f"{source.path} has {length} lines"
        for source in read_sources()
        if (length := source.text.count("\n")) > FILE_LINES_MAX
    ]
    assert long == []


def test_lines_fit() -> None:
    long = [
        f"{source.path}:{number}"
        for source in read_sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if len(_PRAGMA.sub("", line)) > LINE_LENGTH_MAX
    ]
    assert long == []


def test_every_module_says_what_it_is_responsible_for() -> None:
    silent = [
        source.path
        for source in read_sources()
        if source.tree.body and not ast.get_docstring(source.tree)
    ]
    assert silent == []


def test_names_say_what_things_are() -> None:
    empty = []
    for source in read_sources():
        names = [source.path.rpartition("/")[2].removesuffix(".py")]
        names += [
            node.name
            for node in ast.walk(source.tree)
            # A test's name is a sentence and may say what it likes.
            if isinstance(node, _FUNCTION | ast.ClassDef) and not node.name.startswith("test_")
        ]
        for name in names:
            words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
            if EMPTY_NOUNS & {word.lower() for word in words}:
                empty.append(f"{source.path}: {name}")
    assert empty == []


def test_files_that_docstrings_name_exist() -> None:
    gone = [
        f"{source.path}: {path}"
        for source in read_sources()
        for node in ast.walk(source.tree)
        if isinstance(node, _FUNCTION | ast.ClassDef | ast.Module)
        for path in _OWN_PATH.findall(ast.get_docstring(node) or "")
        if not (ROOT / path.rstrip(".")).exists()
    ]
    assert gone == []


def test_nothing_is_left_for_later() -> None:
    marked = [
        f"{source.path}:{number}"
        for source in read_sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if _UNFINISHED.search(line)
    ]
    assert marked == []


def _blocks_the_loop(source: SourceFile) -> Iterator[Finding]:
    for function in functions(source):
        if isinstance(function, ast.AsyncFunctionDef):
            for call, name in calls(function):
                if name in {"time.sleep", "sleep", "subprocess.run", "httpx.get", "httpx.post"}:
                    yield call, f"{name} in async code; use asyncio's, or a thread"


def _prints(source: SourceFile) -> Iterator[Finding]:
    if not source.path.startswith(PRINTERS):
        for call, name in calls(source.tree):
            if name == "print":
                yield call, "print; use logging"


def _runs_text(source: SourceFile) -> Iterator[Finding]:
    for call, name in calls(source.tree):
        if name in {"eval", "exec", "compile", "__import__"}:
            yield call, f"{name}; data is data: parse it with json"
        elif name in {"os.system", "os.popen", "asyncio.create_subprocess_shell"}:
            yield call, f"{name}; use subprocess with an argv"
        shell = keyword(call, "shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            yield call, "shell=True; split the command into an argv"
        if name == "yaml.load":
            yield call, "yaml.load; use yaml.safe_load"


def _unpickles(source: SourceFile) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            modules.append(getattr(node, "module", None) or "")
            if not source.path.startswith("tests/") and {
                module.partition(".")[0] for module in modules
            } & {"pickle", "cloudpickle", "marshal", "shelve", "dill"}:
                yield node, "pickle and its like run code on reading; use json or msgpack"


def _mocks(source: SourceFile) -> Iterator[Finding]:
    for line, module, name in source.imports():
        if module == "unittest.mock" or (module, name) == ("unittest", "mock") or module == "mock":
            yield ast.Pass(lineno=line), "mock; use the memory store, or a real server"


def _asks_for_local_time(source: SourceFile) -> Iterator[Finding]:
    for call, name in calls(source.tree):
        if name.endswith(("datetime.utcnow", "datetime.now")) and not (call.args or call.keywords):
            yield call, f"{name}() without a zone; use datetime.now(UTC)"


def _waits_blindly(source: SourceFile) -> Iterator[Finding]:
    """A test waits for a condition in a loop with a deadline, never for some time to pass."""
    if not source.path.startswith("tests/"):
        return
    polls = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.While | ast.For | ast.AsyncFor)
        for inner in ast.walk(node)
    }
    for call, name in calls(source.tree):
        if name in {"time.sleep", "asyncio.sleep"} and id(call) not in polls:
            duration = call.args[0] if call.args else None
            if not (isinstance(duration, ast.Constant) and duration.value == 0):
                yield call, f"{name} outside a loop; wait until a condition holds"


def _skips_silently(source: SourceFile) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        for decorator in getattr(node, "decorator_list", ()):
            name = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if name.startswith("pytest.mark.") and name.rpartition(".")[2] in {
                "skip",
                "skipif",
                "xfail",
            }:
                given = isinstance(decorator, ast.Call) and keyword(decorator, "reason")
                if not given:
                    yield node, f"{name} without a reason"
    for call, name in calls(source.tree):
        if name in {"pytest.skip", "pytest.xfail"} and not (call.args or call.keywords):
            yield call, f"{name} without a reason"


RULES = (
    _blocks_the_loop,
    _prints,
    _runs_text,
    _unpickles,
    _mocks,
    _asks_for_local_time,
    _waits_blindly,
    _skips_silently,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.strip("_"))
def test_calls_that_are_not_made_here(rule: Callable[[SourceFile], Iterator[Finding]]) -> None:
    found = [
        f"{source.path}:{getattr(node, 'lineno', 0)}: {message}"
        for source in read_sources()
        for node, message in rule(source)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (_blocks_the_loop, "persistence/a.py", "async def f():\n    time.sleep(1)"),
        (_prints, "persistence/a.py", "print(1)"),
        (_runs_text, "persistence/a.py", "eval('1')"),
        (_runs_text, "persistence/a.py", "subprocess.run('ls', shell=True)"),
        (_runs_text, "persistence/a.py", "yaml.load(text)"),
        (_unpickles, "persistence/a.py", "import pickle"),
        (_mocks, "tests/a.py", "from unittest import mock"),
        (_mocks, "tests/a.py", "from unittest.mock import patch"),
        (_asks_for_local_time, "persistence/a.py", "datetime.now()"),
        (_waits_blindly, "tests/a.py", "time.sleep(1)"),
        (_skips_silently, "tests/a.py", "@pytest.mark.skip\ndef f(): pass"),
        (_skips_silently, "tests/a.py", "pytest.skip()"),
    ],
)
def test_each_rule_finds_what_it_is_for(
    rule: Callable[[SourceFile], Iterator[Finding]], path: str, text: str
) -> None:
    assert list(rule(SourceFile(path, text, ast.parse(text))))


def test_the_packages_are_all_looked_at() -> None:
    tops = {source.path.partition("/")[0] for source in read_sources()}
    assert {*PACKAGES, "tests", "examples", "benchmarks"} <= tops
