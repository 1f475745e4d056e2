"""Every import contract of pyproject.toml stands, and each one is seen to fail on a planted breach."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocols", "gateway", "simulator")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS: list[dict[str, Any]] = PROJECT["tool"]["importlinter"]["contracts"]

LATER = ("protocols.lens", "gateway.session.relay", "gateway.control.dispatcher")
"""Modules that contracts name by pattern, since later rooms bring them: planted empty where missing."""

BREACHES: dict[str, list[tuple[str, str]]] = {
    "protocols-stand-alone": [
        ("protocols.wire", "gateway.model"),
        ("protocols.dlt645.frame", "simulator"),
    ],
    "protocols-no-libraries": [("protocols.q_gdw376", "pydantic"), ("protocols", "numpy.linalg")],
    "families-apart": [
        ("protocols.dlt645.frame", "protocols.q_gdw376"),
        ("protocols.q_gdw376", "protocols.dlt645.frame"),
    ],
    "families-importers": [
        ("gateway.collection", "protocols.dlt645.frame"),
        ("gateway.api", "protocols.q_gdw376"),
        ("protocols.wire", "protocols.dlt645"),
    ],
    "lens-importers": [("gateway.storage", "protocols.lens"), ("simulator", "protocols.lens")],
    "control-frames": [
        ("gateway.session.meter", "protocols.dlt645.control"),
        ("gateway.control.dispatcher", "protocols.dlt645.control"),
        ("protocols.dlt645.frame", "protocols.dlt645.control"),
        ("protocols.dlt645.connection", "protocols.dlt645.control"),
        ("protocols.dlt645.description", "protocols.dlt645.control"),
        ("gateway.session", "protocols.dlt645.control"),
        ("gateway.field.line", "protocols.dlt645.control"),
    ],
    "field-only-reads": [
        ("gateway.field", "protocols.dlt645.control"),
        ("gateway.field.scan", "protocols.dlt645.commands"),
        ("gateway.field.reading", "protocols.permit"),
        ("gateway.field.direct", "protocols.lens.meter_composition"),
    ],
    "field-without-gateway": [
        ("gateway.field.scan", "gateway.storage"),
        ("gateway.field", "gateway.session"),
        ("gateway.transports.link", "gateway.storage"),
    ],
    "relay-door": [
        ("gateway.api", "gateway.session.relay"),
        ("gateway.control", "gateway.session.relay"),
        ("gateway.session", "gateway.session.relay"),
    ],
    "ticket-door": [
        ("gateway.field.direct", "gateway.field.relay_line"),
        ("gateway.cli.direct_read", "gateway.field.relay_line"),
        ("gateway.control.tickets", "gateway.field.relay_line"),
    ],
    "simulator-stands-alone": [("simulator", "gateway.model"), ("simulator", "pydantic")],
    "no-simulator-inside": [("gateway.service", "simulator"), ("gateway.cli", "simulator")],
}
"""Contract -> imports (from, to) that it must refuse, each planted alone. The layers have their own test."""


def layers() -> list[list[str]]:
    """The gateway's layers from high to low, each with its modules."""
    (contract,) = (c for c in CONTRACTS if c["type"] == "layers")
    return [
        [f"gateway.{name.strip(' ()')}" for name in re.split(r"[|:]", layer)] for layer in contract["layers"]
    ]


def source(tree: Path, module: str) -> Path:
    """The file of `module` in `tree`; made empty, with the packages above it, where there is none."""
    place = tree.joinpath(*module.split("."))
    if place.with_suffix(".py").exists():
        return place.with_suffix(".py")
    if (place / "__init__.py").exists():
        return place / "__init__.py"
    for package in [tree.joinpath(*module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)]:
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
    if place.is_dir():
        place /= "__init__.py"
    else:
        place = place.with_suffix(".py")
    place.touch()
    return place


def plant(tree: Path, importer: str, imported: str) -> None:
    file = source(tree, importer)
    file.write_text(f"{file.read_text()}\nimport {imported}\n")


def lint(tree: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """import-linter on the sources in `tree`, as `make check` runs it here."""
    chosen = [argument for contract in contracts for argument in ("--contract", contract)]
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", *chosen],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages with every later room there, empty."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    (tmp_path / "tests").mkdir()
    for file in (ROOT / "tests" / "__init__.py", ROOT / "tests" / "import_contracts.py"):
        shutil.copy(file, tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module in [*LATER, *(module for layer in layers() for module in layer)]:
        source(tmp_path, module)
    return tmp_path


def test_every_contract_has_a_planted_breach() -> None:
    assert {c["id"] for c in CONTRACTS} == {*BREACHES, "gateway-layers"}


def test_the_sources_keep_every_contract() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_later_rooms_break_nothing_by_being_there(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("contract", "importer", "imported"),
    [(contract, *breach) for contract, breaches in BREACHES.items() for breach in breaches],
)
def test_a_contract_catches_its_breach(tree: Path, contract: str, importer: str, imported: str) -> None:
    plant(tree, importer, imported)
    result = lint(tree, contract)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout, result.stdout + result.stderr
    assert importer in result.stdout


def test_no_room_may_import_the_rooms_above_or_beside_it(tree: Path) -> None:
    forbidden = [(low, high) for upper, lower in pairwise(layers()) for high in upper for low in lower] + [
        (one, other) for layer in layers() for one, other in pairwise(layer)
    ]
    for low, high in forbidden:
        plant(tree, low, high)
    result = lint(tree, "gateway-layers")
    assert result.returncode == 1
    for low, high in forbidden:
        assert f"{low} is not allowed to import {high}:" in result.stdout


def test_a_room_that_nobody_placed_is_refused(tree: Path) -> None:
    source(tree, "gateway.elsewhere")
    result = lint(tree, "gateway-layers")
    assert result.returncode == 1
    assert "- gateway.elsewhere" in result.stdout


def imported_packages(package: str) -> set[str]:
    """Top-level names that the sources of `package` import, other than ours and the standard library's."""
    found = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name.partition(".")[0] for name in found} - {*PACKAGES, *sys.stdlib_module_names}


def test_what_the_program_imports_it_declares() -> None:
    lines = PROJECT["project"]["dependencies"]
    declared = {re.split(r"[<>=!~ \[]", line)[0] for line in lines} | {"psycopg-pool"}  # an extra of psycopg
    distributions = packages_distributions()
    for package in PACKAGES:
        for name in imported_packages(package):
            names = {re.sub(r"[-_.]+", "-", distribution).lower() for distribution in distributions[name]}
            assert names & declared, f"{package} imports {name}, of {names}"
