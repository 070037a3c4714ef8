"""The official layouts, written from drawings of our own, and the real files where they are."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharpmaml.data import DataError, ImageEpisodes, download, load_omniglot, make_source, omniglot

# Two background alphabets and one of evaluation, with their official names and first numbers.
ALPHABETS = (("Arcadian", 1, 4), ("Armenian", 27, 3), ("Angelic", 965, 5))


@pytest.fixture(scope="module")
def official(strokes):
    """Members of the official zips: name -> PNG bytes; and the ink they show, 105x105."""
    members, inks = {}, []
    row = 0
    for alphabet, first, count in ALPHABETS:
        part = "images_background" if first <= 964 else "images_evaluation"
        for character in range(count):
            for drawer in range(20):
                small = Image.fromarray(strokes.images[row, drawer])
                ink = np.asarray(small.resize((105, 105))) > 100
                inks.append(ink)
                name = (
                    f"{part}/{alphabet}/character{character + 1:02d}/"
                    f"{first + character:04d}_{drawer + 1:02d}.png"
                )
                stream = io.BytesIO()
                Image.fromarray(~ink).save(stream, "PNG")  # mode "1", paper = 1
                members[name] = stream.getvalue()
            row += 1
    return members, np.stack(inks).reshape(row, 20, 105, 105)


def write_zips(folder, members):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            archive.writestr(f"{part}/", b"")
            for name, content in members.items():
                if name.startswith(part):
                    archive.writestr(name, content)


def write_folders(folder, members):
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def expected(inks):
    return np.stack(
        [
            [
                np.asarray(Image.fromarray(ink.astype(np.uint8) * 255).resize((28, 28), 2))
                for ink in drawings
            ]
            for drawings in inks
        ]
    )


@pytest.mark.parametrize("write", [write_zips, write_folders])
@pytest.mark.parametrize("nested", [".", "omniglot-py", "omniglot"])
def test_official_layouts_read_back(tmp_path, official, write, nested):
    members, inks = official
    write(tmp_path / nested, members)
    found = load_omniglot(tmp_path)
    assert np.array_equal(found.images, expected(inks))
    assert found.alphabet_names == ("Arcadian", "Armenian", "Angelic")
    assert found.alphabet.tolist() == [0] * 4 + [1] * 3 + [2] * 5
    assert found.class_names[4] == "Armenian/character01"
    assert found.name == "omniglot (12 of 1623 classes)"
    # The smaller background alphabet is val, evaluation is test.
    assert {name: rows.tolist() for name, rows in found.splits.items()} == {
        "train": [0, 1, 2, 3],
        "val": [4, 5, 6],
        "test": [7, 8, 9, 10, 11],
    }


def test_a_mixed_layout_and_a_source(tmp_path, official):
    members, _ = official
    write_zips(tmp_path, members)
    (tmp_path / "images_background.zip").unlink()
    write_folders(tmp_path, {n: c for n, c in members.items() if n.startswith("images_back")})
    source = make_source("omniglot", root=tmp_path, ways=16, queries=3)
    assert source.recipe["rotations"] is True
    assert source.recipe["root"] == str(tmp_path)
    assert source.episode(0).query_x.shape == (48, 1, 28, 28)
    again = make_source(**source.recipe)
    assert again.episode(3).query_x.equal(source.episode(3).query_x)
    assert make_source("omniglot", root=tmp_path, split="test").classes == 5


def test_order_is_by_class_number_not_by_name(tmp_path, official):
    members, _ = official
    renamed = {
        name.replace("Arcadian", "Zulu").replace("Armenian", "Aaa"): content
        for name, content in reversed(members.items())
    }
    write_zips(tmp_path, renamed)
    assert load_omniglot(tmp_path).alphabet_names == ("Zulu", "Aaa", "Angelic")


def test_junk_is_passed_by(tmp_path, official):
    members, inks = official
    junk = {
        f"__MACOSX/{name.replace('0001_01', '._0001_01')}": b"junk" for name in list(members)[:1]
    } | {
        "__MACOSX/images_background/Arcadian/character01/0001_01.png": b"junk",
        "images_background/.DS_Store": b"junk",
        "images_background/Arcadian/character01/Thumbs.png": b"junk",
        "images_background/readme.txt": b"junk",
    }
    write_zips(tmp_path / "zips", members)
    with zipfile.ZipFile(tmp_path / "zips" / "images_background.zip", "w") as archive:
        for name, content in {**junk, **members}.items():  # junk first: it would win
            if "images_evaluation" not in name:
                archive.writestr(name, content)
    write_folders(tmp_path / "folders", members)
    write_folders(tmp_path / "folders" / "images_background", junk)
    for layout in ("zips", "folders"):
        assert np.array_equal(load_omniglot(tmp_path / layout).images, expected(inks))


def test_small_zips_need_saying_so(tmp_path, official):
    members, inks = official
    with zipfile.ZipFile(tmp_path / "images_background_small1.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("images_evaluation", "images_background"), content)
    with pytest.raises(DataError, match="small=True"):
        load_omniglot(tmp_path)
    with pytest.raises(DataError, match="2 alphabets leave split train"):
        only = tmp_path / "two"
        only.mkdir()
        with zipfile.ZipFile(only / "images_background_small2.zip", "w") as archive:
            for name, content in members.items():
                if "background" in name:
                    archive.writestr(name, content)
        load_omniglot(only, small=True)
    both = load_omniglot(tmp_path, small=True)
    assert np.array_equal(both.images, expected(inks))


def test_one_part_alone(tmp_path, official):
    members, _ = official
    third = {n.replace("images_evaluation", "images_background").replace("/0965", "/0068")
             .replace("/0966", "/0069").replace("/0967", "/0070").replace("/0968", "/0071")
             .replace("/0969", "/0072"): c for n, c in members.items()}  # fmt: skip
    write_folders(tmp_path, third)
    with pytest.raises(DataError, match=r"lacks images_evaluation.*--data-root DIR"):
        load_omniglot(tmp_path)
    found = load_omniglot(tmp_path, small=True)
    assert [len(found.splits[name]) for name in ("train", "val", "test")] == [4, 3, 5]


def damage_cut(folder):
    path = folder / "images_background.zip"
    path.write_bytes(path.read_bytes()[:-300])


def damage_bits(folder):
    path = folder / "images_background.zip"
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(bytes(content))


def damage_missing_drawing(folder):
    path = folder / "images_background.zip"
    with zipfile.ZipFile(path) as archive:
        kept = {n: archive.read(n) for n in archive.namelist() if not n.endswith("0002_07.png")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)


def damage_empty(folder):
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            archive.writestr("readme.txt", "nothing here")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_cut, "images_background.zip cannot be used"),
        (damage_bits, "images_background.zip cannot be used"),
        (damage_missing_drawing, "class 0002 .Arcadian/character02. has 19 of 20 drawings"),
        (damage_empty, "no <alphabet>/character01"),
    ],
)
def test_damaged_zips(tmp_path, official, damage, message):
    write_zips(tmp_path, official[0])
    damage(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_omniglot(tmp_path)
    text = str(caught.value)
    assert "\n" not in text and "--data-root DIR" in text and "--download" in text


def test_a_truncated_png_is_named(tmp_path, official):
    write_folders(tmp_path, official[0])
    victim = tmp_path / "images_background/Armenian/character02/0028_03.png"
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(DataError, match=r"Armenian/character02/0028_03.png"):
        load_omniglot(tmp_path)


def test_one_number_for_two_classes(tmp_path, official):
    members, _ = official
    name = "images_background/Arcadian/character01/0001_01.png"
    other = name.replace("Arcadian", "Armenian")
    write_folders(tmp_path, {**members, other: members[name]})
    with pytest.raises(DataError, match="class 0001 also is"):
        load_omniglot(tmp_path)


def test_missing_places(tmp_path, own_cache):
    with pytest.raises(DataError, match=r"nowhere does not exist: pass --data-root DIR"):
        load_omniglot(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has neither omniglot.npz nor images_background"):
        load_omniglot(tmp_path)
    with pytest.raises(DataError, match="no Omniglot files were named"):
        make_source("omniglot")
    (tmp_path / "omniglot.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"omniglot.tar is not an .npz file"):
        load_omniglot(tmp_path / "omniglot.tar")
    with pytest.raises(DataError, match=r"'santoro'.*lake or vinyals"):
        load_omniglot(tmp_path, split="santoro")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"text"])
def test_a_corrupt_npz(tmp_path, content):
    (tmp_path / "omniglot.npz").write_bytes(content)
    for root in (tmp_path, tmp_path / "omniglot.npz"):
        with pytest.raises(DataError, match=r"omniglot.npz cannot be used .*--data-root DIR"):
            load_omniglot(root)


def test_a_foreign_npz(tmp_path):
    path = tmp_path / "omniglot.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(DataError, match="cannot be used"):
        load_omniglot(path)
    arrays = {"alphabet_names": np.array(["a"]), "alphabet": np.zeros(2, np.uint8),
              "character": np.ones(2, np.uint8)}  # fmt: skip
    np.savez(path, images=np.zeros((2, 20, 1379), np.uint8), **arrays)
    with pytest.raises(DataError, match=r"expected uint8 \(1623, 20, 1379\)"):
        load_omniglot(path)
    np.savez(path, images=np.array([{"a": 1}], dtype=object), **arrays)  # would need pickle
    with pytest.raises(DataError, match="cannot be used"):
        load_omniglot(path)


@pytest.fixture
def mirror(tmp_path, official, monkeypatch):
    """Our own archives behind file:// addresses, in place of the official ones."""
    write_zips(tmp_path / "mirror", official[0])
    archives = tuple(
        download.Archive(a.name, path.as_uri(), download.sha256_of(path))
        for a in download.OMNIGLOT
        for path in [tmp_path / "mirror" / a.name]
    )
    monkeypatch.setattr(omniglot, "OMNIGLOT", archives)
    return archives


def test_download(tmp_path, official, mirror):
    root = tmp_path / "data" / "new"
    found = load_omniglot(root, download=True)
    assert np.array_equal(found.images, expected(official[1]))
    names = ["images_background.zip", "images_evaluation.zip"]
    assert sorted(path.name for path in root.iterdir()) == names
    shutil.rmtree(tmp_path / "mirror")  # what is there and right is not fetched again
    assert load_omniglot(root, download=True).fingerprint == found.fingerprint


def test_download_replaces_a_damaged_file(tmp_path, official, mirror):
    root = tmp_path / "data"
    root.mkdir()
    (root / "images_background.zip").write_bytes(b"half")
    assert len(load_omniglot(root, download=True).images) == 12


def test_download_without_a_root_goes_to_the_cache(tmp_path, mirror, monkeypatch):
    monkeypatch.setenv("SHARP_LANDSCAPE_CACHE", str(tmp_path / "cache"))
    found = load_omniglot(download=True)
    assert load_omniglot().fingerprint == found.fingerprint
    assert (tmp_path / "cache" / "omniglot" / "images_evaluation.zip").is_file()


def test_a_wrong_checksum_leaves_no_file(tmp_path, mirror):
    Path(tmp_path / "mirror" / "images_background.zip").write_bytes(b"something else")
    root = tmp_path / "data"
    with pytest.raises(DataError, match=r"has sha256 .*, expected .*nothing was kept"):
        load_omniglot(root, download=True)
    assert list(root.iterdir()) == []


def test_an_address_that_fails(tmp_path, mirror):
    shutil.rmtree(tmp_path / "mirror")
    root = tmp_path / "data"
    with pytest.raises(DataError, match=r"images_background.zip could not be fetched") as caught:
        load_omniglot(root, download=True)
    assert "--data-root DIR" in str(caught.value) and "\n" not in str(caught.value)
    assert list(root.iterdir()) == []


def test_nothing_is_fetched_where_an_npz_lies(tmp_path, mirror):
    (tmp_path / "omniglot.npz").write_bytes(b"corrupt")
    shutil.rmtree(tmp_path / "mirror")
    with pytest.raises(DataError, match=r"omniglot.npz cannot be used"):
        load_omniglot(tmp_path, download=True)


@pytest.fixture(scope="module")
def real(real_data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "cached", lambda name, key, build: build())
        return load_omniglot(real_data / "omniglot.npz")


def test_real_omniglot_by_background_and_evaluation(real):
    assert real.name == "omniglot"
    assert len(real.splits["train"]) + len(real.splits["val"]) == 964
    assert {name: len(rows) for name, rows in real.splits.items()} == {
        "train": 883, "val": 81, "test": 659
    }  # fmt: skip
    sides = {
        name: {real.alphabet_names[a] for a in real.alphabet[rows]}
        for name, rows in real.splits.items()
    }
    assert len(sides["train"]) == 25 and len(sides["test"]) == 20
    aboriginal = "_(Canadian_Aboriginal_Syllabics)"
    assert sides["val"] == {
        "Tagalog", "Alphabet_of_the_Magi",
        *(f"{name}{aboriginal}" for name in ("Blackfoot", "Ojibwe", "Inuktitut")),
    }  # fmt: skip
    assert not sides["train"] & sides["val"] and not sides["test"] & sides["train"]
    assert real.class_names[963].startswith("Tifinagh/") and real.class_names[964].startswith(
        "Angelic/"
    )
    assert real.images.mean() / 255 == pytest.approx(0.081, abs=0.001)
    assert ImageEpisodes(real, "train", 20, rotations=True).classes == 4 * 883


def test_vinyals_split_is_that_of_the_packed_file(real_data):
    splits = omniglot._vinyals(np.arange(1, 1624))
    with np.load(real_data / "omniglot.npz", allow_pickle=False) as stored:
        for side, name in enumerate(("train", "val", "test")):
            assert np.array_equal(splits[name], np.flatnonzero(stored["vinyals"] == side))


def test_vinyals_split_counts():
    counts = {name: len(rows) for name, rows in omniglot._vinyals(np.arange(1, 1624)).items()}
    assert counts == {"train": 1028, "val": 172, "test": 423}


@pytest.mark.parametrize("which", [1, 2])
def test_official_small_zips_agree_with_the_packed_file(real, real_data, tmp_path, which):
    name = f"omniglot_images_background_small{which}.zip"
    if not (real_data / name).is_file():
        pytest.skip(f"no {name}")
    shutil.copy(real_data / name, tmp_path / name.removeprefix("omniglot_"))
    found = load_omniglot(tmp_path, small=True)
    rows = [real.class_names.index(class_name) for class_name in found.class_names]
    assert len(rows) == {1: 136, 2: 156}[which]
    assert np.array_equal(found.images, real.images[rows])
    assert [len(set(found.alphabet[found.splits[s]])) for s in ("train", "val", "test")] == [
        3,
        1,
        1,
    ]
