"""What a second worker gains in curation, what going on costs, and what a very long file takes.

    python benchmarks/curation_workers.py data/talking                  # 60 files by one and two workers, then again
    python benchmarks/curation_workers.py data/talking --minutes 60     # one file of an hour: time and memory

The videos are the folder's; those of the hour are joined end to end. The first wants two idle cores.
"""

import argparse
import resource
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import av

from skyreels_audio.curation.engine import curate
from skyreels_audio.curation.recipe import Recipe, read_recipe
from skyreels_audio.curation.select import LIGHT, read_rows, select
from skyreels_audio.curation.storage import Folder

ROOT = Path(__file__).parents[1]


def timed(recipe: Recipe, source: Path, out: Path, workers: int) -> tuple[float, int]:
    """Seconds, and sources that were scored."""
    begun = time.perf_counter()
    outcome = curate(recipe, source, out, workers=workers)
    return time.perf_counter() - begun, outcome.scored


def join(videos: list[Path], seconds: float, path: Path) -> None:
    """The videos one after another until that long, their packets copied."""
    with av.open(str(videos[0])) as first:
        each = float((first.duration or 0) / av.time_base)
    listed = path.with_suffix(".txt")
    listed.write_text("".join(f"file '{video.resolve()}'\n" for video in islice(cycle(videos), round(seconds / each))))
    with av.open(str(listed), format="concat", options={"safe": "0"}) as source, av.open(str(path), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        last = dict.fromkeys(streams, -1)
        for packet in source.demux():  # a file's sound may begin before that of the one before ends
            if packet.dts is not None and packet.dts > last[packet.stream.index]:
                last[packet.stream.index] = packet.dts
                packet.stream = streams[packet.stream.index]
                output.mux(packet)


def compare_workers(recipe: Recipe, videos: list[Path], folder: Path) -> None:
    sources = folder / "sources.txt"
    sources.write_text("".join(f"{video.resolve()}\n" for video in videos))
    one, scored = timed(recipe, sources, folder / "one", 1)
    two, _ = timed(recipe, sources, folder / "two", 2)
    again, left = timed(recipe, sources, folder / "two", 2)
    print(f"{scored} files: one worker {one:.1f} s, two {two:.1f} s, speed-up {one / two:.2f} (bar 1.8)")
    print(f"again, {left} left to score: {again:.2f} s, {100 * again / two:.1f} % (bar 2)")


def measure_long(recipe: Recipe, videos: list[Path], minutes: float, folder: Path) -> None:
    (folder / "long").mkdir()
    path = folder / "long" / "long.mp4"
    join(videos, 60 * minutes, path)
    path.with_suffix(".txt").unlink()
    seconds, _ = timed(recipe, folder / "long", folder / "rows", 1)
    clips = read_rows(Folder(folder / "rows"), LIGHT)
    kept = sum(verdict.kept for verdict in select(clips, recipe))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"{minutes:g} minutes in one file: {len(clips)} clips, {kept} kept, {seconds:.0f} s, peak {peak:.2f} GB (bar 2)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--minutes", type=float)
    given = parser.parse_args()
    recipe = read_recipe(ROOT / "recipes" / "curate.yaml")
    videos = sorted(given.videos.glob("*.mp4"))
    with tempfile.TemporaryDirectory() as folder:
        if given.minutes:
            measure_long(recipe, videos, given.minutes, Path(folder))
        else:
            compare_workers(recipe, videos[: given.files], Path(folder))


if __name__ == "__main__":
    main()
