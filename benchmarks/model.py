"""What a checkpoint reaches, on people, photographs, voices and sentences that no training has seen.

    python benchmarks/model.py --model weights/tiny --photographs FOLDER [--quick] [--only lips,speed]

Prints a table and writes docs/results/model.json and model.md. Single cases are remembered in --work: an interrupted
run goes on where it stopped, and a rerun measures only what changed. With --only the table keeps its other rows, of
whatever checkpoint they are. Needs espeak-ng.
"""

import argparse
import os
import time
from pathlib import Path

from table import Row, plain, with_stored, write
from workbench import Workbench

from skyreels_audio.threads import offered_cores

ROOT = Path(__file__).parents[1]
PARTS = ("autoencoder", "lips", "pictures", "silence", "life", "text", "speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny", help="checkpoint folder")
    parser.add_argument("--quick", action="store_true", help="fewer cases of each kind")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--photographs", type=Path, help="folder of portraits (data/portraits)")
    parser.add_argument("--examples", type=Path, default=ROOT / "examples", help="folder with paintings, if any")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench-model", help="where cases are remembered")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not (options.model / "model_index.json").exists():
        parser.error(f"{options.model} is not a checkpoint: it has no model_index.json")

    started, load = time.perf_counter(), os.getloadavg()[0]
    bench = Workbench(options.model, options.work, options.quick, options.photographs, options.examples)
    rows: list[Row] = []
    for part in chosen:
        print(part, flush=True)
        rows += _measure(part, bench)
    about = {
        "model": options.model.name,
        "date": time.strftime("%Y-%m-%d"),
        "cases": "few (--quick)" if options.quick else "all",
        "parts": "all" if len(chosen) == len(PARTS) else f"{' '.join(chosen)}; the others were measured before",
        "steps": bench.settings.num_inference_steps,
        "audio guidance": bench.settings.audio_guidance_scale,
        "text guidance": bench.settings.text_guidance_scale,
        "seconds": round(time.perf_counter() - started),
        "processors": offered_cores(),
        "load before": round(load, 1),  # seconds measured on a busy machine say little
    }
    print("\n" + plain(rows))
    if len(chosen) < len(PARTS):
        rows = with_stored(options.output, "model", rows)
    write(options.output, "model", "What the checkpoint reaches", rows, about)


def _measure(part: str, bench: Workbench) -> list[Row]:
    import model_life
    import model_lips
    import model_picture

    measures = {
        "autoencoder": model_picture.autoencoder,
        "lips": model_lips.lips,
        "pictures": model_lips.pictures,
        "silence": model_lips.silence,
        "life": model_life.life,
        "text": model_picture.text,
        "speed": model_picture.speed,
    }
    return measures[part](bench)


if __name__ == "__main__":
    main()
