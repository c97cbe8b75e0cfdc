"""Images and results elsewhere than on the disk, on fsspec's store in memory: the same as on the disk."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from PIL import Image

from asymseg.data.pixels import read_pixels
from asymseg.errors import AsymsegError, ConfigError, DataError
from asymseg.prediction.many.planning import plan_files
from asymseg.prediction.many.stores import Store, find_in_store, is_address, on_disk


@pytest.fixture
def place() -> Iterator[str]:
    """The address of a folder in memory."""
    address = f"memory://{uuid4().hex}"
    yield address
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["disk", "memory", "store on the disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, place: str) -> Store:
    return Store({"disk": str(tmp_path), "memory": place, "store on the disk": f"local://{tmp_path}/s"}[request.param])


def put_image(folder: Store, name: str) -> np.ndarray:
    """Write an image of two colours as a PNG, whatever its name."""
    from io import BytesIO

    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0] = 255
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    folder.write(name, content.getvalue())
    return pixels


def test_what_is_an_address():
    assert is_address("s3://bucket/photos")
    assert is_address("simplecache::s3://bucket")
    assert not is_address("photos/*.jpg")
    assert not is_address(Path("/photos").as_uri())
    assert not is_address(Path("photos"))
    assert on_disk(Path("/photos/a b.png").as_uri().replace("%20", " ")) == Path("/photos/a b.png")
    assert on_disk("photos") == Path("photos")


def test_what_is_written_is_read(folder: Store):
    assert not folder.has("a/b.txt")
    assert folder.names("a") == []
    folder.write("a/b.txt", b"one")
    folder.write("c d.txt", b"two")
    folder.write("a/b.txt", b"three")
    assert folder.has("a/b.txt")
    assert sorted(folder.names()) == ["a/b.txt", "c d.txt"]
    assert folder.names("a") == ["a/b.txt"]
    assert folder.content("a/b.txt") == b"three"
    assert dict(folder.contents(["a/b.txt", "c d.txt"])) == {"a/b.txt": b"three", "c d.txt": b"two"}


def test_an_image_and_what_is_said_of_a_damaged_one(folder: Store):
    pixels = put_image(folder, "a/b.png")
    np.testing.assert_array_equal(read_pixels(folder.read("a/b.png")), pixels)
    folder.write("cut.png", folder.content("a/b.png")[:50])
    with pytest.raises(DataError) as caught:
        read_pixels(folder.read("cut.png"))
    assert str(caught.value).startswith(f"{folder.place('cut.png')}: not readable")
    with pytest.raises(DataError, match="none.png: no such file"):
        read_pixels(folder.read("none.png"))


@pytest.mark.parametrize(
    ("pattern", "root", "names"),
    [
        ("", "", ["a.png", "trip/b.jpg", "trip/c.txt"]),
        ("/", "", ["a.png", "trip/b.jpg", "trip/c.txt"]),
        ("/trip", "/trip", ["b.jpg", "c.txt"]),
        ("/*", "", ["a.png"]),
        ("/**/*.jpg", "", ["trip/b.jpg"]),
        ("/trip/b.*", "/trip", ["b.jpg"]),
        ("/trip/b.jpg", "/trip", ["b.jpg"]),
        ("/nowhere", "/nowhere", []),
    ],
)
def test_what_an_address_means(place: str, pattern: str, root: str, names: list[str]):
    for name in ("a.png", "trip/b.jpg", "trip/c.txt"):
        Store(place).write(name, b"x")
    store, found = find_in_store(place + pattern)
    assert store == Store(place + root)
    assert sorted(found) == names


def test_a_plan_of_a_store_is_that_of_the_disk(place: str, tmp_path: Path):
    names = ("b.png", "a.tif", "trip/c.BMP", "notes.txt", ".hidden.png", "masks/old.png")
    plans = []
    for root in (place, str(tmp_path / "photos")):
        for name in names:
            Store(root).write(name, b"x")
        plans.append(plan_files(root, f"{root}/masks"))
        assert plans[-1].source == Store(root)
        assert plan_files(f"{root}/trip/*", "out").names == ("c.BMP",)
        assert plan_files(f"{root}/b.png", f"{root}/x.png").named == "x.png"
        with pytest.raises(DataError, match="would lie among the images themselves"):
            plan_files(root, root)
        with pytest.raises(DataError, match="would overwrite the image"):
            plan_files(f"{root}/*.*", root)
        with pytest.raises(DataError, match="no images there"):
            plan_files(f"{root}/none", "out")
        with pytest.raises(ConfigError, match="there are 4 images; give a folder"):
            plan_files(root, f"{root}.png")
    assert plans[0].names == plans[1].names == ("a.tif", "b.png", "trip/c.BMP")
    assert plans[0].mask("trip/c.BMP") == "trip/c.png"
    assert plans[0].files("b.png", True, True) == ["b.png", "b_overlay.jpg", "b_probabilities.npz"]


def test_a_list_of_images(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for root in (place, str(tmp_path)):
        folder = Store(root)
        folder.write("lists/some.txt", b"../photos/b.jpg\n\n  ../photos/trip/a.png \n../photos/b.jpg\n")
        folder.write("lists/none.txt", b"\n")
        folder.write("lists/binary.txt", b"\xff\xfe\xff")
        folder.write("lists/zeros.txt", b"a.png\0\n")
        folder.write("lists/whole.txt", f"\ufeff{root}/photos/b.jpg\n{root}/photos/trip/a.png".encode())
        plan = plan_files(f"{root}/lists/whole.txt", "out")
        assert (plan.source, plan.names) == (Store(f"{root}/photos"), ("b.jpg", "trip/a.png"))
        with pytest.raises(DataError, match="none.txt: no images there"):
            plan_files(f"{root}/lists/none.txt", "out")
        for name in ("binary", "zeros"):
            with pytest.raises(DataError, match=f"{name}.txt: not a text"):
                plan_files(f"{root}/lists/{name}.txt", "out")
        folder.write("lists/folder.txt", b"s3://bucket/photos/\n")
        with pytest.raises(DataError, match=r"folder.txt: s3://bucket/photos/ is a folder; name images"):
            plan_files(f"{root}/lists/folder.txt", "out")
    (tmp_path / "lists" / "root.txt").write_text("/\n")
    with pytest.raises(DataError, match=r"root.txt: .*/ is a folder; name images"):
        plan_files(tmp_path / "lists" / "root.txt", "out")
    monkeypatch.chdir(tmp_path)
    plan = plan_files(Path("lists/some.txt"), "out")
    assert (plan.source, plan.names) == (Store(f"{tmp_path}/photos"), ("b.jpg", "trip/a.png"))
    (tmp_path / "two.txt").write_text(f"{place}/a.png\ns3://other/b.png")
    with pytest.raises(DataError, match=r"two.txt: its images lie in several stores"):
        plan_files("two.txt", "out")


def test_several_inputs_keep_their_places_below_what_they_share(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for root in (place, str(tmp_path)):
        for name in ("a/1.png", "b/1.png", "b/c/2.jpg", "b/notes.txt", "out/a/1.png"):
            Store(root).write(name, f"{root}/a/1.png".encode())
        several = [f"{root}/a/1.png", f"{root}/b", f"{root}/b/*.png"]
        plan = plan_files(several, "out")
        assert (plan.source, plan.names) == (Store(root), ("a/1.png", "b/1.png", "b/c/2.jpg"))
        assert [plan.mask(name) for name in plan.names] == ["a/1.png", "b/1.png", "b/c/2.png"]
        assert plan_files([f"{root}/a/1.png"], "out").names == ("1.png",)
        with pytest.raises(DataError, match=r"a/none.png: no images there|none.png: no such file"):
            plan_files([f"{root}/a/none.png", f"{root}/a/1.png"], "out")
        with pytest.raises(ConfigError, match="there are 2 images; give a folder"):
            plan_files([f"{root}/a/1.png", f"{root}/b/1.png"], "out.png")
    with pytest.raises(DataError, match="a/1.png and others: its images lie in several stores"):
        plan_files([f"{place}/a/1.png", tmp_path / "a"], "out")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b" / "empty").mkdir()
    shells = sorted(str(path) for path in Path("b").iterdir())
    with pytest.warns(UserWarning, match=r"^passed over, for they are no images: b/empty, b/notes.txt, out$"):
        assert plan_files(["a", *shells, "out"], "out").names == ("a/1.png", "b/1.png", "b/c/2.jpg")
    with pytest.raises(DataError, match="out out: no images there"):
        plan_files(["out", "out"], "out")


def test_two_images_of_one_mask_are_refused(place: str):
    for name in ("a.jpg", "a.bmp"):
        Store(place).write(name, b"x")
    with pytest.raises(DataError, match=r"a\.bmp and .*a\.jpg would both write out/a\.png"):
        plan_files(place, "out")


def test_a_store_that_is_not_known_here():
    with pytest.raises(ConfigError, match="nosuch://x: no such kind of store here"):
        find_in_store("nosuch://x")
    with pytest.raises(ConfigError, match="no such kind of store here"):
        Store("nosuch://x").write("a", b"")


def test_what_a_store_says_is_one_line(place: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **settings: object) -> None:
        raise RuntimeError("AccessDenied:\n no rights")

    folder = Store(place)
    folder.write("a", b"x")
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    monkeypatch.setattr(type(memory), "cat_file", refuse)
    with pytest.raises(AsymsegError, match=r"/b: cannot be written \(AccessDenied: no rights\); make room"):
        folder.write("b", b"x")
    with pytest.raises(DataError, match=r"/a: cannot be read from there \(AccessDenied: no rights\)"):
        folder.read("a")
