import hashlib

import pytest
from typer.testing import CliRunner

from skyreels_audio.cli import app
from skyreels_audio.cli.training import parse_changes
from skyreels_audio.media import InputError
from skyreels_audio.training import data_folder
from skyreels_audio.training.data_folder import Part, check_data, digest, listed_parts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips" / "more").mkdir(parents=True)
    (tmp_path / "clips" / "b").write_bytes(b"two")
    (tmp_path / "clips" / "more" / "a").write_bytes(b"one")
    return tmp_path


def test_a_folders_hash_is_that_of_its_listing(folder):
    def line(data: bytes, name: str) -> str:
        return f"{hashlib.sha256(data).hexdigest()}  {name}\n"

    listing = line(b"two", "b") + line(b"one", "more/a")
    assert digest(folder / "clips") == (2, hashlib.sha256(listing.encode()).hexdigest())
    assert digest(folder / "clips" / "b") == (1, hashlib.sha256(b"two").hexdigest())


def test_what_differs_is_named(folder, monkeypatch):
    part = Part("clips", *digest(folder / "clips"), "somewhere", "CC0")
    monkeypatch.setattr(data_folder, "listed_parts", lambda: [part])
    assert check_data(folder) == [(part, None)]
    (folder / "clips" / "b").write_bytes(b"other")
    assert check_data(folder)[0][1] == "other contents"
    (folder / "clips" / "b").unlink()
    assert check_data(folder)[0][1] == "1 files instead of 2"
    result = CliRunner().invoke(app, ["check-data", str(folder)])
    assert isinstance(result.exception, InputError) and "clips" in str(result.exception)


def test_the_list_names_source_licence_and_hash_of_everything():
    parts = listed_parts()
    assert len({part.path for part in parts}) == len(parts) >= 5
    assert all(part.source and part.licence and len(part.sha256) == 64 and part.files > 0 for part in parts)


def test_changes_are_yaml():
    changes = parse_changes(["a.b=3", "c=[1, 2]", "d=x=y"])
    assert changes == {"a.b": 3, "c": [1, 2], "d": "x=y"}
    for text in ("a", "=3", "a=["):
        with pytest.raises(InputError, match="--set"):
            parse_changes([text])
