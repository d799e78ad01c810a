"""The command line as a person meets it: results, and bad input in one clear line."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image
from tiny_study import N_SUBNETS, write_backbone, write_study

from glora_search.cli.commands import main
from glora_search.recording import Database

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in `tmp_path`, in this process: importing torch anew would take seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLORA_SEARCH_STORAGE", raising=False)

    def run_command(*words: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["glora-search", *map(str, words)])
        capsys.readouterr()
        status: Any = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        shown = capsys.readouterr()
        return Ended(status, shown.out, shown.err)

    return run_command


def files_below(folder: Path) -> dict[str, int]:
    """Every file and when it changed; a database changes by the lease that is taken and given."""
    return {
        str(p.relative_to(folder)): 0 if p.suffix == ".db" else p.stat().st_mtime_ns
        for p in folder.rglob("*")
    }


@pytest.fixture
def finished(tmp_path: Path, run: Run) -> Path:
    """A finished tiny study called `tiny`."""
    ended = run("launch", write_study(tmp_path))
    assert ended.status == 0, ended.err
    return tmp_path


def test_launch_status_export_report(finished: Path, run: Run) -> None:
    """One study through all verbs; what programs read is JSON on stdout."""
    listed = json.loads(run("status", "--json").out)
    assert [(s["study"], s["status"], s["evaluated"]) for s in listed] == [
        ("tiny", "complete", N_SUBNETS)
    ]
    one = json.loads(run("status", "tiny", "--json").out)
    assert one["evaluated"] == one["planned"] == N_SUBNETS
    assert [g["evaluated"] for g in one["generations"]] == [8, 8, 8]
    assert "tiny" in run("status").out
    assert "trial" in run("status", "tiny").out

    exported = json.loads(run("export", "tiny", "--trial", "5", "--out", "five", "--json").out)
    assert exported["trial"] == 5
    subnet = json.loads((finished / "five" / "subnet.json").read_text())
    assert subnet["trial"] == 5
    assert set(subnet["layers"]) == {f"blocks.{b}.{n}" for b in (0, 1) for n in LAYERS}
    assert subnet["test"]["n_images"] > subnet["val"]["n_images"] > 0
    assert subnet["largest_logit_difference_val"] < 1e-4

    assert run("report", "tiny").out.strip() == "tiny.html"
    assert "plotly" in (finished / "tiny.html").read_text()


LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def test_a_finished_study_is_not_done_again(finished: Path, run: Run) -> None:
    """Resuming it tells the same result; launching it under its name is refused."""
    before = files_below(finished / "runs")
    ended = run("resume", "tiny", "--json")
    assert ended.status == 0
    assert json.loads(ended.out)["evaluated"] == N_SUBNETS
    assert files_below(finished / "runs") == before
    again = run("launch", finished / "study.toml")
    assert again.status == 1
    assert "resume tiny" in again.error


def test_a_second_study_reuses_the_supernet(finished: Path, run: Run) -> None:
    """Training is by far the longest step; another search over the same network skips it."""
    before = files_below(finished / "runs" / "supernets")
    ended = run(
        "launch", finished / "study.toml", "--set", "study.name=two", "--set", "search.fitness=top1"
    )
    assert ended.status == 0, ended.err
    assert "reusing the supernet" in ended.err
    assert files_below(finished / "runs" / "supernets") == before


# --- bad input: each one clear line, and nothing that was not there before ---


def refused(run: Run, folder: Path, *words: str | Path, status: int = 1) -> str:
    before = files_below(folder)
    ended = run(*words)
    assert ended.status == status, ended.err
    assert ended.out == ""
    assert files_below(folder) == before, "something was written"
    return ended.error


def test_five_mistakes_in_a_study_file(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path, search={"generatoins": 1, "fitness": "x"}, supernet={"lr": -1})
    error_lines = ("generatoins", "fitness", "supernet.lr", "cluster.workers", "study.seed")
    ended = run("launch", study, "--set", "cluster.workers=-1", "--set", "study.seed=x")
    assert ended.status == 2
    assert "5 mistakes" in ended.error
    assert all(word in ended.err for word in error_lines)
    assert not (tmp_path / "glora-search.db").exists()


@pytest.mark.parametrize(
    ("section", "changes", "told"),
    [
        ("search", {"min_params": 10**9}, "min_params=1,000,000,000 admits no subnet"),
        ("space", {"patterns": ["blocks.*.atn.*"]}, "'blocks.*.atn.*' match no linear layer"),
        ("backbone", {"model": "vit_tny_patch16_224"}, "did you mean vit_tiny_patch16_224"),
        ("backbone", {"checkpoint": "absent.safetensors"}, "is not a file"),
        ("backbone", {"checkpoint": "other.safetensors"}, "does not hold weights of"),
        ("data", {"n_train": 900}, "n_train=900"),
        ("cluster", {"address": "127.0.0.1:1", "workers": 1}, "no Ray at '127.0.0.1:1'"),
    ],
)
def test_what_cannot_be_launched(
    tmp_path: Path, run: Run, section: str, changes: dict[str, Any], told: str
) -> None:
    write_backbone(tmp_path / "other.safetensors", embed_dim=32)
    study = write_study(tmp_path, **{section: changes})
    assert told in refused(run, tmp_path, "launch", study)


def test_an_impossible_maximum(tmp_path: Path, run: Run) -> None:
    """Where even the smallest subnet is too large."""
    choices = {s: ["vector"] for s in "ABCDE"}
    study = write_study(tmp_path, search={"max_params": 10})
    text = study.read_text().replace('preset = "digits"', f"choices = {_inline(choices)}")
    study.write_text(text)
    assert "max_params=10 admits no subnet: the smallest has" in refused(
        run, tmp_path, "launch", study
    )


def _inline(choices: dict[str, list[str]]) -> str:
    return "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in choices.items()) + " }"


def test_a_supernet_of_another_backbone(finished: Path, run: Run) -> None:
    (supernet,) = (finished / "runs" / "supernets").glob("*.safetensors")
    write_backbone(finished / "other.safetensors", embed_dim=16, num_heads=4)
    (finished / "other.safetensors").write_bytes((finished / "backbone.safetensors").read_bytes())
    corrupt(finished / "other.safetensors")
    words = ("--set", "study.name=three", "--set", f"supernet.checkpoint='{supernet}'")
    ended = run(
        "launch",
        finished / "study.toml",
        *words,
        "--set",
        "backbone.checkpoint='other.safetensors'",
    )
    assert ended.status == 1
    assert "was made from something else (backbone:" in ended.error


def corrupt(checkpoint: Path) -> None:
    """Change one weight of a checkpoint: the last byte of the file belongs to one."""
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(content)


@pytest.mark.parametrize("verb", ["status", "resume", "report"])
def test_an_unknown_study(finished: Path, run: Run, verb: str) -> None:
    assert "nearest: tiny" in refused(run, finished, verb, "tinny")


def test_an_unknown_study_to_export(finished: Path, run: Run) -> None:
    assert "nearest: tiny" in refused(run, finished, "export", "tinny", "--out", "x")


@pytest.mark.parametrize("verb", ["status", "resume", "report"])
def test_a_database_that_is_not_there(tmp_path: Path, run: Run, verb: str) -> None:
    words = [] if verb == "status" else ["tiny"]
    error = refused(run, tmp_path, verb, *words, "--storage", "sqlite:///absent.db")
    assert "there is no file absent.db" in error


def test_a_server_that_is_not_there(tmp_path: Path, run: Run) -> None:
    """And its password stays where it belongs."""
    url = "postgresql://me:secret@127.0.0.1:1/studies"
    assert "secret" not in refused(run, tmp_path, "status", "--storage", url)


def test_a_study_that_another_process_drives(finished: Path, run: Run) -> None:
    with Database("sqlite:///glora-search.db") as database, database.open_study("tiny").hold():
        ended = run("resume", "tiny")
    assert ended.status == 1
    assert "driven by another process" in ended.error
    assert f":{os.getpid()} holds it" in ended.error
    assert "decoding" not in ended.err, "told only after slow work"


def test_one_damaged_study_hides_no_other(finished: Path, run: Run) -> None:
    """Three ways to be damaged, a line for each; a program finds the lines as well."""
    with Database("sqlite:///glora-search.db") as database:
        sound = database.open_study("tiny")
        for name in ("odd", "old", "held"):
            made = database.create_study(
                name, space=sound.space, objectives=sound.objectives, attributes=sound.attributes
            )
            made.set_attribute("finalists", [{"no": "finalist"}] if name == "odd" else [])
    for name, key, value in (("old", "format", 99), ("held", "lease", {})):
        by_hand = optuna.load_study(study_name=name, storage="sqlite:///glora-search.db")
        by_hand.set_user_attr(f"glora_search:{key}", value)
    ended = run("status")
    assert ended.status == 0
    assert f"{N_SUBNETS} of {N_SUBNETS}" in ended.out
    damaged = [line for line in ended.out.splitlines() if line.startswith("damaged")]
    assert [line.split("study ")[1].split("'")[1] for line in damaged] == ["odd", "old", "held"]
    listed = json.loads(run("status", "--json").out)
    assert [s["study"] for s in listed if "fault" not in s] == ["tiny"]
    assert [s["status"] for s in listed] == ["complete", *["damaged"] * 3]


def test_an_export_directory_that_is_not_empty(finished: Path, run: Run) -> None:
    (finished / "full").mkdir()
    (finished / "full" / "precious.txt").write_text("x")
    assert "not an empty directory" in refused(
        run, finished, "export", "tiny", "--out", finished / "full"
    )


def test_a_trial_that_is_not_there(finished: Path, run: Run) -> None:
    assert f"has no trial {N_SUBNETS}" in refused(
        run, finished, "export", "tiny", "--trial", str(N_SUBNETS), "--out", "x"
    )


def test_a_key_that_cannot_change_on_resume(finished: Path, run: Run) -> None:
    error = refused(run, finished, "resume", "tiny", "--set", "search.population=9", status=2)
    assert "search.population cannot change" in error


def test_wrong_usage(tmp_path: Path, run: Run) -> None:
    assert run("lanch").status == 2
    assert run("launch").status == 2
    assert run("example", "nonesuch").status == 2
    assert "vtab-vit-b16" in run("example").out


@pytest.fixture
def image_study(tmp_path: Path) -> Path:
    """A study over image files, which can change before it is resumed."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 6), ("test", 4)):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 255, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    data = {"source": "folder", "root": str(tmp_path / "images"), "classes": None}
    study = write_study(tmp_path)
    lines = study.read_text().splitlines()
    start = lines.index("[data]")
    stop = next(k for k in range(start + 1, len(lines)) if lines[k].startswith("["))
    kept = [f"{key} = {json.dumps(value)}" for key, value in data.items() if value is not None]
    study.write_text("\n".join([*lines[: start + 1], *kept, *lines[stop:]]))
    return study


def test_resume_under_changed_inputs(image_study: Path, tmp_path: Path, run: Run) -> None:
    """One image of val, one of train, the backbone: each is refused by its name."""
    assert run("launch", image_study).status == 0
    image = tmp_path / "images" / "val" / "cat" / "0.png"
    original = image.read_bytes()
    Image.fromarray(np.full((8, 8), random.Random(1).randrange(255), np.uint8)).save(image)
    assert "the val split changed" in refused(run, tmp_path, "resume", "tiny")
    assert "the val split changed" in refused(run, tmp_path, "export", "tiny", "--out", "x")
    image.write_bytes(original)
    (tmp_path / "images" / "train" / "cat" / "0.png").unlink()
    corrupt(tmp_path / "backbone.safetensors")
    assert "the backbone, the train split changed" in refused(run, tmp_path, "resume", "tiny")


def test_help_has_examples_for_every_verb(run: Run) -> None:
    """And answers without the slow imports (their absence is a test of its own)."""
    for verb in ("demo", "launch", "resume", "status", "export", "report"):
        shown = run(verb, "--help")
        assert shown.status == 0
        assert f"glora-search {verb}" in shown.out.partition("Example")[2]
