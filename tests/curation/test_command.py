"""The command: from a folder of videos to the manifest that training reads, and again with another limit."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from curation_support import scene, sound, write
from typer.testing import CliRunner

from skyreels_audio import cli
from skyreels_audio.curation.schema import Clip, to_table
from skyreels_audio.training.manifest import read_manifest

RECIPE = """
stages: {{content: null, quality: null, portrait: null, audio: null, synchrony: null}}
limits: {{probe: {{has_audio: {{among: [true]}}}}, split: {{seconds: {{min: {shortest}}}}}}}
"""


def run(*words: object) -> str:
    result = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_pool_becomes_a_manifest(tmp_path: Path) -> None:
    pool, out, recipe = tmp_path / "pool", tmp_path / "out", tmp_path / "recipe.yaml"
    pool.mkdir()
    write(pool / "two.mp4", np.concatenate([scene(0, 60), scene(1, 30)]), sound(0, 3.6))
    write(pool / "mute.mp4", scene(2, 40))
    (pool / "empty.mp4").write_bytes(b"")
    recipe.write_text(RECIPE.format(shortest=1))
    assert "3 sources (0 finished before, 3 scored now), 4 clips, kept 2" in run(
        "curate", recipe, "--input", pool, "--out", out
    )
    rows = read_manifest(out / "manifest.parquet")
    assert [(round(row.start * 25), round(row.end * 25)) for row in rows] == [(0, 60), (60, 90)]
    assert all(Path(row.path) == pool / "two.mp4" and row.width == 64 and row.caption for row in rows)
    page = (out / "report.html").read_text()
    assert "probe.has_audio" in page and "probe.error" in page and page.count("data:image/jpeg") >= 3
    assert not re.search(r"https?://", page)  # one static file

    written = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    recipe.write_text(RECIPE.format(shortest=2))
    assert "3 sources (3 finished before, 0 scored now), 4 clips, kept 1" in run(
        "curate", recipe, "--input", pool, "--out", out, "--no-pictures"
    )
    assert {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()} == written
    reasons = pyarrow.parquet.read_table(out / "selection.parquet").column("reason").to_pylist()
    assert sorted(map(str, reasons)) == ["None", "probe.error", "probe.has_audio", "split.seconds"]


def test_labels_reach_the_manifest(tmp_path: Path) -> None:
    from skyreels_audio.curation.manifest import export_manifest
    from skyreels_audio.curation.recipe import Recipe
    from skyreels_audio.curation.select import LIGHT, read_rows, select
    from skyreels_audio.curation.storage import Folder

    done = {stage.name: stage.version for stage in Recipe().stages.active()}
    rng = np.random.default_rng(0)
    landmarks, boxes = rng.normal(size=26 * 136).astype(np.float32), rng.normal(size=26 * 4).astype(np.float32)
    clip = Clip("s-0000", str(tmp_path / "s.mp4"), 1.0, 2.02, done)
    known = {"hash": "0" * 64, "fps": 30.0, "sync_offset": -3, "sync_confidence": 0.5, "sync_method": "landmarks"}
    row = Clip(**{**vars(clip), **known, "landmarks": landmarks, "boxes": boxes, "seconds": 1.02, "language": "en"})
    out = Folder(tmp_path)
    out.write_table("rows/s.parquet", to_table([row]))
    assert export_manifest(select(read_rows(out, LIGHT), Recipe()), out) == 1
    (told,) = read_manifest(tmp_path / "manifest.parquet")
    assert told.sync_offset == -3 and told.sync_expert == "landmarks" and told.language == "en"
    assert told.landmarks_F682 is not None and np.array_equal(told.landmarks_F682.ravel(), landmarks)
    assert told.face_boxes_F4 is not None and told.face_boxes_F4.shape == (26, 4)


@pytest.mark.parametrize(("offset", "start", "end"), [(0, 0.0, 2.0), (1, 0.0, 2.0), (4, 0.0, 1.84), (-5, 0.2, 2.0)])
def test_frames_whose_sound_is_cut_off_are_left_out(offset: int, start: float, end: float) -> None:
    """Sound that is late by four frames ends four frames after the file does."""
    from skyreels_audio.curation.manifest import manifest_row
    from skyreels_audio.training.manifest import label_frames

    boxes = np.repeat(np.arange(50, dtype=np.float32), 4)
    clip = Clip("s", "s.mp4", 0.0, 2.0, hash="0" * 64, fps=25.0, source_seconds=2.0, sync_offset=offset, boxes=boxes)
    row = manifest_row(clip)
    assert (row.start, row.end) == pytest.approx((start, end))
    assert row.face_boxes_F4 is not None and len(row.face_boxes_F4) == label_frames(end - start)
    assert row.face_boxes_F4[0, 0] == round(25 * start)
    row.check()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--input", "{tmp}/nowhere", "--out", "{tmp}/out"], "does not exist"),
        (["--input", "{tmp}", "--out", "nosuch://bucket/out"], "nosuch"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path: Path, words: list[str], says: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(shortest=1))
    given = [word.format(tmp=tmp_path) for word in words]
    result = CliRunner().invoke(cli.app, ["curate", str(recipe), *given])
    assert result.exit_code != 0 and says in str(result.exception)
    assert not (tmp_path / "out").exists()
