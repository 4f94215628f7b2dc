"""The local engine: nothing lost, nothing done twice, whatever ends a worker or the run."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from curation_support import quick_recipe, scene, sound, write

from skyreels_audio.curation.engine import curate, find_sources
from skyreels_audio.curation.recipe import Limit
from skyreels_audio.curation.select import LIGHT, read_rows, select
from skyreels_audio.curation.storage import Folder
from skyreels_audio.curation.worker import QUARANTINED
from skyreels_audio.media import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good videos, one that is empty, one that is a picture's bytes."""
    folder = tmp_path_factory.mktemp("videos")
    write(folder / "v0.mp4", scene(0, 50), sound(0, 2.0))
    for k in range(1, 5):
        write(folder / f"v{k}.mp4", scene(k, 50))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "sub").mkdir()
    (folder / "sub" / "picture.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (folder / "notes.txt").write_text("no video")
    return folder


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*")}


def test_a_pool_is_scored_once_and_a_poison_video_is_quarantined(videos: Path, tmp_path: Path) -> None:
    pool, out = tmp_path / "pool", tmp_path / "out"
    shutil.copytree(videos, pool)
    shutil.copy(pool / "v1.mp4", pool / "poison.mp4")
    first = curate(quick_recipe(), pool, out, workers=1)
    assert (first.sources, first.scored, first.quarantined, first.missing) == (8, 8, 1, 0)
    rows = {Path(clip.source).name: clip for clip in read_rows(Folder(out), LIGHT)}
    assert set(rows) == {"v0.mp4", "v1.mp4", "v2.mp4", "v3.mp4", "v4.mp4", "empty.mp4", "picture.mp4", "poison.mp4"}
    assert (rows["poison.mp4"].error or "").startswith(f"{QUARANTINED}: 2 attempts, its worker ended with code -11")
    assert "zero bytes" in (rows["empty.mp4"].error or "")
    assert rows["v0.mp4"].has_audio and not rows["v1.mp4"].has_audio and rows["v1.mp4"].error is None

    written = stamps(out)
    again = curate(quick_recipe(), pool, out, workers=1)
    assert (again.before, again.scored) == (8, 0) and stamps(out) == written

    # A file that changed is a new source; one lost file is made again, and nothing else.
    (out / "rows" / f"{rows['v2.mp4'].id.split('-')[0]}.parquet").unlink()
    assert curate(quick_recipe(), pool, out, workers=1).scored == 1
    assert {name for name, at in stamps(out).items() if written.get(name) != at} == {
        f"{rows['v2.mp4'].id.split('-')[0]}.parquet"
    }


def test_a_rejected_clip_keeps_its_row_and_is_finished_when_the_limit_is_lifted(videos: Path, tmp_path: Path) -> None:
    strict = quick_recipe(limits={"probe": {"has_audio": Limit(among=[True])}})
    curate(strict, videos, tmp_path, workers=1)
    rows = read_rows(Folder(tmp_path), LIGHT)
    passed_on = [clip for clip in rows if clip.rejected == "probe.has_audio"]
    assert len(passed_on) == 4 and not any("split" in clip.stages for clip in passed_on)
    kept = [each.clip.source for each in select(rows, strict) if each.kept]
    assert [Path(source).name for source in kept] == ["v0.mp4"]

    outcome = curate(quick_recipe(), videos, tmp_path, workers=1)
    assert outcome.scored == 4  # those with sound, and those with errors, are finished
    verdicts = select(read_rows(Folder(tmp_path), LIGHT), quick_recipe())
    assert sum(each.kept for each in verdicts) == 5


def test_a_killed_run_goes_on(videos: Path, tmp_path: Path) -> None:
    script = (
        "from curation_support import quick_recipe; from skyreels_audio.curation.engine import curate\n"
        f"if __name__ == '__main__': curate(quick_recipe(held='v3'), {str(videos)!r}, {str(tmp_path)!r}, workers=1)"
    )
    file = tmp_path / "run.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, str(file)], env=environment)
    end = time.monotonic() + 300
    try:
        while len(list((tmp_path / "rows").glob("*.parquet"))) < 2 and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows").glob("*.parquet")}
    assert 2 <= len(before) < 7
    outcome = curate(quick_recipe(), videos, tmp_path, workers=2)
    assert (outcome.before, outcome.scored, outcome.missing) == (len(before), 7 - len(before), 0)
    after = stamps(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(read_rows(Folder(tmp_path), LIGHT)) == 7


def test_lists_of_files_are_read_and_mistakes_told(videos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{videos}/v0.mp4\n{videos}/gone.mp4\n")
    assert len(find_sources(listed)) == 2
    with pytest.raises(InputError, match="does not exist"):
        find_sources(tmp_path / "nothing")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no videos"):
        find_sources(tmp_path / "none")


def test_a_bucket_is_read_and_written(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import s3fs
    from fsspec.config import conf

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        _, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setitem(conf, "s3", {"endpoint_url": f"http://127.0.0.1:{port}"})
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("pool")
        for name in ("v0.mp4", "v1.mp4", "empty.mp4"):
            bucket.put_file(str(videos / name), f"pool/in/{name}")
        outcome = curate(quick_recipe(), "s3://pool/in", "s3://pool/out", workers=1)
        assert (outcome.sources, outcome.scored, outcome.missing) == (3, 3, 0)
        rows = read_rows(Folder("s3://pool/out"), LIGHT)
        assert sorted(clip.source for clip in rows) == [f"s3://pool/in/{n}" for n in ("empty.mp4", "v0.mp4", "v1.mp4")]
        assert sum(clip.error is None for clip in rows) == 2
        assert curate(quick_recipe(), "s3://pool/in", "s3://pool/out", workers=1).scored == 0
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_tables_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("rows/a.parquet", np.arange(4).tobytes())
    assert folder.files("rows") == {}
