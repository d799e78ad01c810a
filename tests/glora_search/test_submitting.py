"""What may be sent to a cluster as a job, and what the cluster gets to see of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glora_search.cluster.submitting import checked_storage, launch_submission, resume_submission
from glora_search.study.errors import StorageError, StudyFileError

SERVER = "postgresql://me@db/studies"


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    path = tmp_path / "study.toml"
    sections = {
        "study": {"name": "cats", "directory": str(tmp_path / "runs")},
        "backbone": {"model": "vit_tiny_patch16_224", "pretrained": True},
        "data": {"source": "folder", "root": str(tmp_path / "images")},
        "space": {"preset": "mixed"},
    }
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(v)}" for key, v in keys.items())]
    path.write_text("\n".join(lines))
    return path


def test_what_the_head_runs(study_file: Path) -> None:
    """The file as it is written, beside the overrides; and nothing of this machine."""
    submission = launch_submission(study_file, ["search.generations=5"], SERVER)
    assert submission.command == (
        "exec python -m glora_search launch study.toml --address auto "
        f"--set search.generations=5 --storage {SERVER}"
    )
    assert submission.text == study_file.read_text()
    assert submission.study == "cats"
    resumed = resume_submission("cats", [], SERVER).command
    assert resumed == f"exec python -m glora_search resume cats --address auto --storage {SERVER}"


def test_the_heads_own_database_is_not_told_to_the_dashboard(study_file: Path) -> None:
    """Its URL, which may hold a password, stays in the environment of the head."""
    command = launch_submission(study_file, [], "cluster").command
    assert "--storage" not in command
    assert command.startswith(': "${GLORA_SEARCH_STORAGE:?')


def test_words_of_a_study_file_are_quoted(study_file: Path) -> None:
    """The command is for a shell."""
    submission = launch_submission(study_file, ["data.train=a; rm -rf /"], SERVER)
    assert "--set 'data.train=a; rm -rf /'" in submission.command


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.root=images", "data.root = 'images': relative to this working directory"),
        ("study.directory=runs", "study.directory = 'runs': relative"),
        ("export.directory=~/vit", "export.directory = '~/vit': relative"),
        ("data.root=/absent/images", "data.root = '/absent/images': not there"),
        ("cluster.artifacts=kept", "cluster.artifacts = 'kept': relative"),
    ],
)
def test_paths_that_mean_something_else_there(study_file: Path, override: str, told: str) -> None:
    with pytest.raises(StudyFileError, match="1 mistake for a job") as caught:
        launch_submission(study_file, [override], SERVER)
    assert told in str(caught.value)


def test_all_mistakes_at_once(study_file: Path) -> None:
    text = study_file.read_text()
    study_file.write_text("\n".join(x for x in text.splitlines() if "directory" not in x))
    with pytest.raises(StudyFileError, match="2 mistakes for a job") as caught:
        launch_submission(study_file, ["data.root=images"], SERVER)
    assert "study.directory: missing" in str(caught.value)


def test_paths_of_the_cluster_alone(study_file: Path) -> None:
    """A laptop sees nothing of the cluster's file system; who says so may go on. What a study
    writes is never looked for.
    """
    with_elsewhere = ["data.root=/absent/images", "study.directory=/absent/runs"]
    assert launch_submission(study_file, with_elsewhere, SERVER, check_paths=False).text


def test_artifacts_are_where_the_cluster_finds_them(study_file: Path) -> None:
    """A URL is the same from everywhere; a path need not be here."""
    for place in ("s3://bucket/x", "/absent/kept"):
        override = f"cluster.artifacts={place}"
        assert override in launch_submission(study_file, [override], SERVER).command


def test_a_resume_is_not_sent_with_what_it_may_not_change() -> None:
    """Told here, and not by the job."""
    with pytest.raises(StudyFileError, match=r"study\.seed cannot change"):
        resume_submission("cats", ["study.seed=1"], SERVER)


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        (None, "give --storage postgresql://"),
        ("sqlite:///studies.db", "a file of this machine"),
        ("sqlite:////shared/studies.db", "a file of this machine"),
        ("postgresql://me:secret@db/studies", "leave the password out"),
        ("postgresql://me@db/studies?password=secret", "leave the password out"),
        ("postgresql://me@db/studies?sslpassword=secret", "leave the password out"),
    ],
)
def test_databases_that_a_job_cannot_have(
    monkeypatch: pytest.MonkeyPatch, storage: str | None, told: str
) -> None:
    monkeypatch.delenv("GLORA_SEARCH_STORAGE", raising=False)
    with pytest.raises(StorageError) as caught:
        checked_storage(storage)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_environment_names_a_database_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere; and is refused in the same cases."""
    monkeypatch.setenv("GLORA_SEARCH_STORAGE", SERVER)
    assert checked_storage(None) == SERVER
    monkeypatch.setenv("GLORA_SEARCH_STORAGE", "sqlite:///studies.db")
    with pytest.raises(StorageError, match="a file of this machine"):
        checked_storage(None)
