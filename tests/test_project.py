"""The project itself: what is packaged and pinned, and the rules of the architecture no tool checks."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flowgraph"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
SOURCES = sorted(PACKAGE.rglob("*.py"))


def package_name(requirement: str) -> str:
    """`numba-cuda[cu13]==0.30.4` -> `numba-cuda`, in the registry's spelling."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pins(name: str) -> dict[str, str]:
    """Package -> version of requirements/NAME.txt, with what it includes."""
    found = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r ").removesuffix(".txt"))
        elif line and not line.startswith("#"):
            found[package_name(line)] = line.partition("==")[2]
    return found


def inside(path: Path, *rooms: str) -> bool:
    return any(path.is_relative_to(PACKAGE / room) for room in rooms)


def imported(path: Path) -> Iterator[str]:
    """The modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# Packaging


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from a copy of the tree."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(PACKAGE, copy / "flowgraph", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (file,) = (copy / "dist").glob("*.whl")
    return set(zipfile.ZipFile(file).namelist())


def test_the_wheel_holds_every_source_file(wheel: set[str]) -> None:
    assert {str(path.relative_to(ROOT)) for path in SOURCES} <= wheel


def test_the_wheel_holds_the_data_their_credit_and_the_mark_that_it_is_typed(wheel: set[str]) -> None:
    names = ("digits.csv.gz", "tempest.txt.gz", "mark.tsv.gz", "README.md")
    data = {f"flowgraph/datasets/data/{name}" for name in names}
    assert data | {"flowgraph/py.typed"} <= wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_setup_cfg_repeats_nothing_that_pyproject_says() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(setup.sections()) == {"options", "options.packages.find", "options.package_data"}
    assert set(setup["options"]) == {"packages", "include_package_data"}


# Pins


@pytest.mark.parametrize("name", ["demo", "test", "docs"])
def test_every_pin_is_exact(name: str) -> None:
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in pins(name).values())


EXTRAS = {"demo": ["viz"], "test": ["viz", "cuda", "examples", "docs", "test"], "docs": ["examples", "docs"]}


@pytest.mark.parametrize(("name", "extras"), EXTRAS.items())
def test_the_pins_cover_what_the_package_asks_for(name: str, extras: list[str]) -> None:
    optional = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(item for extra in extras for item in optional[extra])]
    assert {package_name(requirement) for requirement in asked} <= pins(name).keys()


def test_the_demo_is_light() -> None:
    assert pins("demo").keys() == {
        "graphviz-pure", "llvmlite", "networkx", "numba", "numpy", "safetensors", "setuptools", "tqdm",
    }  # fmt: skip


# Commands


def test_make_lists_every_command_a_person_may_give() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = re.findall(r"^  make (\S+)", listed, flags=re.MULTILINE)
    assert named == [
        "help", "demo", "test", "gpu-check", "fuzz", "torture", "bench", "bench-peers-env", "pictures", "examples",
        "docs", "lock", "clean",
    ]  # fmt: skip


@pytest.mark.parametrize("name", re.findall(r"-m ((?:flowgraph|benchmarks|tests)\.[\w.]+)", MAKEFILE))
def test_every_module_that_make_runs_exists(name: str) -> None:
    path = ROOT / name.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_continuous_integration_runs_make_test_and_stops_at_the_first_failure() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script and script.rstrip().endswith("\nmake test")


# Architecture


def test_every_file_says_first_what_it_is() -> None:
    assert [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_numba_llvm_and_cuda_are_known_only_to_code_generation_and_backends() -> None:
    offenders = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in SOURCES
        if not inside(path, "codegen", "backends")
        for name in imported(path)
        if name.split(".")[0] in ("numba", "llvmlite", "cuda")
    }
    assert offenders == set()


def asks_which_device(node: ast.AST) -> bool:
    """`device == "cuda"`, `self.device in ("cpu", "auto")` and the like; `device is None` asks nothing."""
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    about_device = any(getattr(side, "id", getattr(side, "attr", None)) == "device" for side in sides)
    return about_device and any(not isinstance(op, ast.Is | ast.IsNot) for op in node.ops)


def test_only_backends_ask_which_device_it_is() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if not inside(path, "backends")
        for node in ast.walk(ast.parse(path.read_text()))
        if asks_which_device(node) and isinstance(node, ast.Compare)
    ]
    assert offenders == []


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        ('device == "cuda"', True),
        ('self.device in ("cpu", "auto")', True),
        ("device is None", False),
        ('name == "cuda"', False),
    ],
)
def test_the_search_for_device_questions_finds_them(line: str, asks: bool) -> None:
    assert any(asks_which_device(node) for node in ast.walk(ast.parse(line))) is asks
