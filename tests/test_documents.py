"""What the documents and the deployment files say is held equal to the program."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from pydantic import BaseModel
from typer import Context
from typer.main import get_command

from gateway.cli import app
from gateway.config import (
    BrokerSettings,
    DialSettings,
    LineSettings,
    MeterSettings,
    ModemSettings,
    ProfileSettings,
    Settings,
    load,
)
from gateway.metrics import Metrics
from gateway.model import REASON_TEXT

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LOCKS = ("requirements-setup.lock", "requirements.lock", "requirements-dev.lock")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def toml_blocks(name: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", read(name), re.MULTILINE | re.DOTALL)


def keys_of(settings: type[BaseModel]) -> set[str]:
    return set(settings.model_fields)


def written_keys(block: str) -> dict[str, set[str]]:
    """Keys by section, those behind `#` too."""
    found: dict[str, set[str]] = {}
    section = ""
    for line in block.splitlines():
        if header := re.match(r"\[([\w.-]+)\]", line):
            section = header[1]
            found[section] = set()
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            found[section].add(key[1])
    return found


# settings ------------------------------------------------------------------------------------------------


def test_the_settings_document_names_every_key() -> None:
    everything, profile, meters, channels = toml_blocks("docs/configuration.md")
    sections = {name: field.annotation for name, field in Settings.model_fields.items() if name != "profiles"}
    assert written_keys(everything) == {
        name: keys_of(section)
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, BaseModel)
    }
    assert set.union(*written_keys(profile).values()) == keys_of(ProfileSettings)
    assert set.union(*written_keys(meters).values()) == keys_of(MeterSettings)
    assert {name.partition(".")[0]: keys for name, keys in written_keys(channels).items()} == {
        "dial": keys_of(DialSettings),
        "lines": keys_of(LineSettings),
        "modems": keys_of(ModemSettings),
        "mqtt": keys_of(BrokerSettings),
    }


def test_the_settings_document_shows_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LINGDIAN_")]:
        monkeypatch.delenv(name)
    everything, profile, meters, channels = toml_blocks("docs/configuration.md")
    (tmp_path / "as-written.toml").write_text(everything, encoding="utf-8")
    assert load(tmp_path / "as-written.toml").model_dump() == load().model_dump()
    (tmp_path / "profile.toml").write_text(profile, encoding="utf-8")
    assert set(load(tmp_path / "profile.toml").profiles) == {"old-gprs"}
    (tmp_path / "meters.toml").write_text(meters, encoding="utf-8")
    assert set(load(tmp_path / "meters.toml").meters) == {"default", "with-chip"}
    (tmp_path / "channels.toml").write_text(channels, encoding="utf-8")
    assert set(load(tmp_path / "channels.toml").lines) == {"basement"}


# operations ----------------------------------------------------------------------------------------------


def test_the_operations_document_explains_every_reason_in_both_languages() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", read("docs/operations.md"), re.MULTILINE)
    explained = {reason: (english, chinese) for reason, english, chinese, _ in rows if reason in REASON_TEXT}
    assert explained == {reason.value: words for reason, words in REASON_TEXT.items()}


def exposed_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def test_the_operations_document_lists_every_metric_with_its_kind() -> None:
    rows = re.findall(
        r"^\| `(lingdian_\w+)(?:\{\w+\})?` \| (\w+) \|", read("docs/operations.md"), re.MULTILINE
    )
    metrics = [m for m in Metrics().registry.collect() if m.name.startswith("lingdian_")]
    assert dict(rows) == {exposed_name(metric): metric.type for metric in metrics}


# the documents among themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_into_the_repository_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_both_readmes_have_the_same_shape() -> None:
    def shape(text: str) -> list[str]:
        """Headings, bullets, code blocks and table rows, in order, without their words."""
        return re.findall(r"^(#+ |- |```|\| `[^`]+`)", text, re.MULTILINE)

    def commands(text: str) -> list[str]:
        return re.findall(r"^\$ ([^#\n]+?) *(?:#.*)?$", text, re.MULTILINE)

    english, chinese = read("README.md"), read("README.zh-CN.md")
    assert shape(english) == shape(chinese)
    assert commands(english) == commands(chinese)


def command_names(command: object, name: str) -> set[str]:
    """`name`, or where it is a group, every command in it."""
    group: Any = command
    if not hasattr(group, "list_commands"):
        return {name}
    context = Context(group)
    return {
        found
        for key in group.list_commands(context)
        for found in command_names(group.get_command(context, key), f"{name} {key}")
    }


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_every_command_and_no_other(readme: str) -> None:
    commands = command_names(get_command(app), "lingdian")
    assert {"lingdian demo", "lingdian relay trip"} <= commands
    quoted = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", read(readme))
    named = {words for line in quoted for words in prefixes(line)}
    for command in commands:
        assert command in named or command.removeprefix("lingdian ") in named, command
    rows = re.findall(r"^\| `(lingdian [^`]+)` \|", read(readme), re.MULTILINE)
    for row in rows:
        assert set(prefixes(row)) & {*commands, *(command.rpartition(" ")[0] for command in commands)}, row


def prefixes(line: str) -> list[str]:
    """`a b c` -> `a`, `a b`, `a b c`."""
    words = line.split()
    return [" ".join(words[:count]) for count in range(1, len(words) + 1)]


def test_every_make_target_named_in_a_document_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:^\$ |`)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, document.name


# set-up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_has_hashes_and_no_addresses(name: str) -> None:
    text = read(name)
    assert "://" not in text
    assert "index-url" not in text
    requirements = re.split(
        r"^(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    )
    for requirement in filter(None, requirements):
        assert "==" in requirement
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]


def test_the_development_lock_holds_the_runtime_lock() -> None:
    runtime, development = (
        set(re.findall(r"^([\w.\[\]-]+==[^\s;]+)", read(name), re.MULTILINE)) for name in LOCKS[1:]
    )
    assert runtime
    assert runtime <= development


def test_the_lock_files_answer_to_the_declared_dependencies() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    declared = {
        LOCKS[0]: project["dependency-groups"]["setup"],
        LOCKS[1]: project["project"]["dependencies"],
        LOCKS[2]: project["project"]["optional-dependencies"]["dev"],
    }
    for lock, requirements in declared.items():
        locked = set(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==", read(lock), re.MULTILINE))
        wanted = {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in requirements}
        assert wanted <= locked, lock


def test_the_build_machine_runs_make_test() -> None:
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & stat.S_IXUSR
    assert run.read_text().rstrip().endswith("exec make test")


def test_make_help_names_every_target() -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    for target in ("setup", "demo", "test", "test-long", "check", "bench", "lock"):
        assert f"make {target}" in said


# compose -------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(read("compose.yaml"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("service", ["timescaledb", "mosquitto", "prometheus", "grafana"])
def test_a_service_is_pinned_watched_durable_and_bound_to_loopback(service: str) -> None:
    described = compose()["services"][service]
    assert re.search(r":v?\d+\.\d+\.\d+", described["image"]), "an exact version"
    assert described["healthcheck"]["test"]
    assert all(str(port).startswith("127.0.0.1:") for port in described["ports"])
    volumes = {volume.partition(":")[0] for volume in described["volumes"]}
    assert volumes & set(compose()["volumes"]), "its data outlives the container"


def test_no_password_has_a_default() -> None:
    text = read("compose.yaml")
    assert re.findall(r"\$\{\w+:-", text) == []
    assigned = re.findall(r"^\s+(\w*PASSWORD): (.+)$", text, re.MULTILINE)
    assert assigned
    for name, value in assigned:
        assert re.fullmatch(r"\$\{\w+:\?.+\}", value), name


def test_every_file_that_a_service_mounts_is_here() -> None:
    for service in compose()["services"].values():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_data_sources_are_those_that_the_dashboard_asks() -> None:
    sources = yaml.safe_load(read("grafana/provisioning/datasources/lingdian.yaml"))["datasources"]
    provider = yaml.safe_load(read("grafana/provisioning/dashboards/lingdian.yaml"))["providers"][0]
    assert {source["uid"]: source["type"] for source in sources} == {
        "lingdian-readings": "grafana-postgresql-datasource",
        "lingdian-metrics": "prometheus",
    }
    mounts = compose()["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
