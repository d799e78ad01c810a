"""VTAB's exchange format: its lists are read as they are, and every mistake names its line."""

import io
from pathlib import Path

import pytest
from data_images import PREPROCESSING, pixels, truncate, write_image
from PIL import Image

from supernet.data import VTAB_CLASSES, VTABSource, load_search_splits, load_split
from supernet.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A task `kitti` (4 classes): 6 train, 3 val, 3 test images in two folders."""
    number = 0
    for name, count in (("train800", 6), ("val200", 3), ("test", 3)):
        lines = []
        for i in range(count):
            file = f"images/{'test' if name == 'test' else 'trainval'}/{number:04d}.jpg"
            write_image(tmp_path / "kitti" / file, seed=number)
            lines.append(f"{file} {i % 4}\n")
            number += 1
        (tmp_path / "kitti" / f"{name}.txt").write_text("".join(lines))
    return tmp_path


def rewrite(root: Path, line: int, text: str, name: str = "train800.txt") -> None:
    path = root / "kitti" / name
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_lists_are_read_in_their_order(root: Path) -> None:
    rewrite(root, 1, "images/trainval/0005.jpg 3")
    rewrite(root, 6, "images/trainval/0000.jpg 2")
    examples = VTABSource(root, "kitti").examples("train")
    assert examples.labels == (3, 1, 2, 3, 0, 2)
    with Image.open(root / "kitti/images/trainval/0005.jpg") as first:
        assert examples.images.open(0).tobytes() == first.tobytes()  # type: ignore[union-attr]
    assert examples.label_space.num_classes == 4


def test_splits_come_from_their_own_lists(root: Path) -> None:
    source = VTABSource(str(root), "kitti")
    assert [len(source.examples(s).labels) for s in ("train", "val", "test")] == [6, 3, 3]
    (root / "kitti/both.txt").write_text("images/trainval/0000.jpg 1\n")
    assert VTABSource(root, "kitti", train="both.txt").examples("train").labels == (1,)


def test_all_19_tasks_are_known_with_their_classes() -> None:
    assert len(VTAB_CLASSES) == 19
    assert sum(VTAB_CLASSES.values()) == 940
    for task, num_classes in VTAB_CLASSES.items():
        assert VTABSource("nowhere", task).label_space().num_classes == num_classes


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"unknown VTAB task .clevr-count.; did you mean clevr_coun"
    ):
        VTABSource("nowhere", "clevr-count")


def test_any_task_goes_with_its_number_of_classes(root: Path) -> None:
    (root / "kitti").rename(root / "mine")
    source = VTABSource(root, "mine", num_classes=7)
    assert source.examples("val").label_space.num_classes == 7


@pytest.mark.parametrize("task", ["../kitti", "/kitti", "", ".", "a/../../b", "..\\kitti"])
def test_a_task_must_not_leave_the_root(task: str) -> None:
    with pytest.raises(DataError, match="a task is a folder below the data's root"):
        VTABSource("nowhere", task, num_classes=2)


def test_a_list_must_not_leave_its_task() -> None:
    with pytest.raises(DataError, match=r"a list is a file in the task's folder; got '\.\./t"):
        VTABSource("nowhere", "kitti", val="../test.txt")


def test_one_list_is_not_two_splits() -> None:
    with pytest.raises(DataError, match=r"val is 'test\.txt' and test is '\./test\.txt'"):
        VTABSource("nowhere", "kitti", val="test.txt", test="./test.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/trainval/0002.jpg 4", "label 4 is not a class; accepted are 0 to 3"),
        ("images/trainval/0002.jpg -1", "label -1 is not a class"),
        ("images/trainval/0002.jpg 1.0", r"the label must be an integer; got '1\.0'"),
        ("images/trainval/0002.jpg two", "the label must be an integer; got 'two'"),
        ("images/trainval/0002.jpg 1_0", "the label must be an integer; got '1_0'"),
        ("images/trainval/0002.jpg", "expected 'relative/path label'; got 'images/trainval"),
        ("images/trainval/0200.jpg 1", r"images/trainval/0200\.jpg: no such file below"),
        ("images/trainval 1", "images/trainval: no such file"),
        ("../kitti/images/trainval/0002.jpg 1", "the path must be below the images' folder"),
        ("/etc/passwd 1", "the path must be below the images' folder"),
    ],
)
def test_a_wrong_line_is_named(root: Path, line: str, message: str) -> None:
    rewrite(root, 3, line)
    with pytest.raises(DataError, match=rf"^train800\.txt, line 3: ?.*{message}"):
        VTABSource(root, "kitti").examples("train")


def test_missing_files_are_counted(root: Path) -> None:
    for number in (1, 4, 5):
        (root / f"kitti/images/trainval/{number:04d}.jpg").unlink()
    with pytest.raises(DataError, match=r"txt, line 2: images.*0001\.jpg.*\(and 2 more of its"):
        VTABSource(root, "kitti").examples("train")


def test_blank_lines_do_not_count_as_images_but_as_lines(root: Path) -> None:
    path = root / "kitti/train800.txt"
    path.write_text("\ufeff\n" + path.read_text().replace("\n", "\r\n") + "\n \n")
    assert len(VTABSource(root, "kitti").examples("train").labels) == 6
    rewrite(root, 2, "images/trainval/0000.jpg x")
    with pytest.raises(DataError, match="line 2"):
        VTABSource(root, "kitti").examples("train")


def test_paths_may_hold_spaces(root: Path) -> None:
    write_image(root / "kitti/images/a b/c d.png", seed=99)
    rewrite(root, 1, "images/a b/c d.png\t2")
    examples = VTABSource(root, "kitti").examples("train")
    assert examples.images.describe(0) == "train800.txt, line 1: images/a b/c d.png"


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_an_empty_list_is_an_error(root: Path, text: str) -> None:
    (root / "kitti/val200.txt").write_text(text)
    with pytest.raises(DataError, match=r"the list val200\.txt is empty"):
        VTABSource(root, "kitti").examples("val")


def test_a_list_that_is_no_text_names_the_line(root: Path) -> None:
    path = root / "kitti/val200.txt"
    path.write_bytes(path.read_bytes() + b"images/\xff.jpg 1\n")
    with pytest.raises(DataError, match=r"val200\.txt, line 4: not UTF-8"):
        VTABSource(root, "kitti").examples("val")


def test_what_is_not_there_is_named(root: Path) -> None:
    (root / "kitti/val200.txt").unlink()
    with pytest.raises(DataError, match=r"the list val200\.txt is not there"):
        VTABSource(root, "kitti").examples("val")
    with pytest.raises(DataError, match=r"no folder 'cifar' below .*; its folders are kitti"):
        VTABSource(root, "cifar").examples("train")
    with pytest.raises(DataError, match="nowhere is not there"):
        VTABSource(root / "nowhere", "cifar").examples("train")
    with pytest.raises(DataError, match="is not a folder"):
        VTABSource(root / "kitti/test.txt", "cifar").examples("train")


def as_text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def as_nothing(path: Path) -> None:
    path.write_bytes(b"")


def as_broken_png(path: Path) -> None:
    """The name of its second chunk of pixels is garbled: PIL calls that a SyntaxError."""
    file = io.BytesIO()
    Image.fromarray(pixels(0, 256, 256)).save(file, "png")
    first, second, *rest = file.getvalue().split(b"IDAT")
    path.write_bytes(first + b"IDAT" + second + bytes(4) + b"IDAT".join(rest))
    with pytest.raises(SyntaxError), Image.open(path) as image:
        image.load()


@pytest.mark.parametrize("spoil", [truncate, as_text, as_nothing, as_broken_png])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_image_that_does_not_decode_is_named_with_its_line(
    root: Path, spoil: object, workers: int
) -> None:
    spoil(root / "kitti/images/trainval/0004.jpg")  # type: ignore[operator]
    truncate(root / "kitti/images/trainval/0005.jpg")  # the first one is named, at any speed
    with pytest.raises(
        DataError,
        match=r"^train800\.txt, line 5: images/trainval/0004\.jpg: the image does not decode: .+",
    ):
        load_split(VTABSource(root, "kitti"), "train", PREPROCESSING, decode_workers=workers)


def test_lists_are_checked_before_anything_is_decoded(root: Path) -> None:
    """The wrong label on val's last line is found before train's broken first image."""
    truncate(root / "kitti/images/trainval/0000.jpg")
    rewrite(root, 3, "images/trainval/0008.jpg 9", name="val200.txt")
    decoded: list[tuple[str, int, int]] = []
    with pytest.raises(DataError, match=r"val200\.txt, line 3: .*label 9"):
        load_search_splits(
            VTABSource(root, "kitti"),
            PREPROCESSING,
            on_progress=lambda *progress: decoded.append(progress),
        )
    assert decoded == []
