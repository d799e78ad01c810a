"""The Dockerfile, read as its builder reads it: its instructions, what they copy, who runs it."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import pytest
from deployment import DOCKER, ROOT


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, and the rest of its line with continuations joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(word, rest) for word, rest in found]


INSTRUCTIONS = instructions()
LAST_STAGE = INSTRUCTIONS[max(i for i, x in enumerate(INSTRUCTIONS) if x.word == "FROM") :]


def test_every_instruction_is_one() -> None:
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD"}
    assert {instruction.word for instruction in INSTRUCTIONS} == known


@pytest.mark.parametrize("run", [x.rest for x in INSTRUCTIONS if x.word == "RUN"])
def test_every_script_is_a_script(run: str) -> None:
    """`sh -n` parses without running."""
    subprocess.run(["sh", "-n", "-c", run], check=True)


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*", "everything is left out that is not named"
    sent = {line[1:] for line in patterns if line.startswith("!")}
    copied = set()
    for instruction in INSTRUCTIONS:
        if instruction.word == "COPY" and not instruction.rest.startswith("--from="):
            copied |= set(shlex.split(instruction.rest)[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    for secret in ("docker/secrets/ray_token.txt", "glora-search.db", ".git/config"):
        assert not any(fnmatch.fnmatch(secret, f"{name}/*") for name in sent)


def test_all_packages_of_the_project_are_in_it() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copies = " ".join(x.rest for x in INSTRUCTIONS if x.word == "COPY")
    assert all(f"{name} {name}" in copies for name in packages)
    assert "postgres" in project["project"]["optional-dependencies"]


def test_everything_installed_is_pinned() -> None:
    """Unpinned would mean another image tomorrow."""
    installs = [
        command
        for x in INSTRUCTIONS
        if x.word == "RUN"
        for command in x.rest.split("&&")
        if "pip install" in command
    ]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in command for command in installs)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "\nuv==" in pinned
    assert "\noptuna-dashboard==" in pinned


def test_uv_knows_the_options() -> None:
    """The variables that the builder sets or takes are options of the uv that is pinned."""
    shown = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    options = ("--torch-backend", "--find-links", "--default-index", "--link-mode", "--extra")
    more = ("--compile-bytecode", "--build-constraint", "--requirement", "--no-deps")
    assert [option for option in (*options, *more) if option not in shown] == []


def test_it_runs_as_nobody_in_particular() -> None:
    user = next(x.rest for x in LAST_STAGE if x.word == "USER")
    assert user == "10001:10001"
    after = LAST_STAGE[[x.word for x in LAST_STAGE].index("USER") :]
    assert not any(x.word in ("RUN", "COPY") for x in after), "files that its user could own"


def test_no_secret_and_no_registry_is_in_it() -> None:
    """Arguments and variables stay readable in an image; an address would tie it to one network."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert "://" not in text
    set_here = {"RAY_AUTH_MODE=token"}
    for instruction in INSTRUCTIONS:
        if instruction.word in ("ARG", "ENV"):
            words = set(instruction.rest.split()) - set_here
            assert not re.search("(?i)password|secret|token|key", " ".join(words))
    assert "RAY_AUTH_MODE=token" in " ".join(x.rest for x in LAST_STAGE)
    unset = {x.rest for x in INSTRUCTIONS if x.word == "ARG" and "=" not in x.rest}
    assert unset == {"PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_FIND_LINKS", "EXTRA_PACKAGES"}


@pytest.mark.parametrize(
    ("variant", "links", "said"),
    [
        ("cpu", "", "backend=cpu"),
        ("cpu", "/wheels", "backend=unset"),
        ("cuda", "", "backend=unset"),
        ("gpu", "", None),
    ],
)
def test_the_variant_chooses_torch(variant: str, links: str, said: str | None) -> None:
    """The very script, with `uv` replaced by what tells the variable that it would read."""
    (script,) = (x.rest for x in INSTRUCTIONS if x.word == "RUN" and "VARIANT" in x.rest)
    tell = 'uv() { echo "backend=${UV_TORCH_BACKEND-unset}"; };'
    ran = subprocess.run(
        ["sh", "-c", f"{tell} {script}"],
        env={"VARIANT": variant, "UV_FIND_LINKS": links, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == (0 if said else 2)
    assert ran.stdout.strip() == (said or "")
