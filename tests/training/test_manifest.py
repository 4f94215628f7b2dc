from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyreels_audio.media import InputError
from skyreels_audio.training.manifest import ManifestRow, file_hash, label_frames, read_manifest, write_manifest


def labelled(seconds: float = 2.0, **given) -> ManifestRow:
    frames = label_frames(seconds)
    landmarks = np.random.default_rng(0).normal(size=(frames, 68, 2)).astype(np.float32)
    landmarks[1] = np.nan
    boxes = np.arange(4 * frames, dtype=np.float32).reshape(-1, 4)
    known = {"path": "a.mp4", "start": 1.0, "end": 1.0 + seconds, "fps": 29.97, "hash": "0" * 64}
    return ManifestRow(**known | {"face_boxes_F4": boxes, "landmarks_F682": landmarks, "sync_offset": -1.0} | given)


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [labelled(caption="a woman", language="en"), ManifestRow("/b.mp4", 0.0, 3.0, 25.0, "1" * 64)]
    write_manifest(rows, tmp_path / "m.parquet")
    back = read_manifest(tmp_path / "m.parquet")
    assert back[0].path == str(tmp_path / "a.mp4") and back[1].path == "/b.mp4"
    for given, read in zip(rows, back, strict=True):
        for field in fields(ManifestRow):
            if field.name != "path":
                np.testing.assert_array_equal(getattr(given, field.name), getattr(read, field.name), field.name)
    assert [p.name for p in tmp_path.iterdir()] == ["m.parquet"]


def test_a_folder_of_manifests_is_one(tmp_path):
    for name in "ba":
        write_manifest([labelled(caption=name)], tmp_path / f"{name}.parquet")
    assert [row.caption for row in read_manifest(tmp_path)] == ["a", "b"]


def test_the_key_follows_file_and_span_not_labels():
    assert labelled().key == labelled(caption="other", landmarks_F682=None).key
    assert len({labelled().key, labelled(hash="1" * 64).key, labelled(1.0).key}) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [({"end": 1.0}, "empty"), ({"fps": 0.0}, "fps"), ({"landmarks_F682": np.zeros((3, 68, 2))}, "landmarks_F682")],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        write_manifest([labelled(**change)], tmp_path / "m.parquet")
    assert not list(tmp_path.iterdir())


def test_what_is_no_manifest_ends_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no such manifest"):
        read_manifest(tmp_path / "m.parquet")
    pq.write_table(pa.table({"path": ["a"], "start": [0.0]}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="lacks the columns end, fps, hash"):
        read_manifest(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_manifest(tmp_path / "m.parquet")


def test_the_hash_is_the_files(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a").startswith("ba7816bf")
