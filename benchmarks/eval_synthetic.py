"""The whole protocol of the paper's Table 1, offline: first frame and voice of a clip drive a video, the clip is truth.

    python benchmarks/eval_synthetic.py [--model weights/tiny] [--footage FOLDER] [--clips 6] [--workers 2]

The clips are rendered people whom no training has seen, and with --footage recordings of real people (data/talking).
Writes docs/results/evaluation.json and evaluation.md; the page with the videos stays in --work. What is there already
(clips, videos, figures of clips) is not made again. Needs espeak-ng.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from skyreels_audio import SkyReelsAudioPipeline, media
from skyreels_audio.cli.progress import Progress
from skyreels_audio.evaluation.cases import Case, read_cases, write_cases
from skyreels_audio.evaluation.evaluate import evaluate
from skyreels_audio.evaluation.held_out import portrait, speaking_motion, true_video, voice
from skyreels_audio.evaluation.measure import Networks
from skyreels_audio.evaluation.page import write_report
from skyreels_audio.evaluation.prepare import prepare, write_sound
from skyreels_audio.evaluation.protocol import Protocol, load_protocol
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.synthetic.render import Renderer

ROOT = Path(__file__).parents[1]
FIRST = 700  # of the drawn people: others than those of the other benchmarks
PROMPT = "A person speaks calmly, the head is still."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny", help="checkpoint folder")
    parser.add_argument("--footage", type=Path, help="folder of videos of talking people")
    parser.add_argument("--clips", type=int, default=6, help="of each kind")
    parser.add_argument("--workers", type=int, default=1, help="processes that measure")
    parser.add_argument("--syncnet", type=Path, help="syncnet_v2.model")
    parser.add_argument("--inception", type=Path, help="weights of FID")
    parser.add_argument("--i3d", type=Path, help="weights of FVD")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "evaluation", help="where everything is kept")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()

    protocol = load_protocol("synthetic")
    reference, generated = options.work / "reference", options.work / "generated"
    cases = [
        *_rendered(reference, protocol, options.clips),
        *_filmed(reference, protocol, options.footage, options.clips),
    ]
    write_cases(reference, cases)
    seconds = _generate(options.model, cases, generated, protocol)
    started = time.perf_counter()
    with Progress() as progress:
        networks = Networks(options.inception, options.i3d, options.syncnet)
        found = evaluate(generated, reference, protocol, options.work, networks, None, options.workers, progress)
    measured = time.perf_counter() - started
    write_report(found, read_cases(reference), generated, options.work)
    options.output.mkdir(parents=True, exist_ok=True)
    for suffix in ("json", "md"):
        shutil.copy(options.work / f"metrics.{suffix}", options.output / f"evaluation.{suffix}")
    print((options.output / "evaluation.md").read_text())
    print(f"{len(cases)} clips: generating took {seconds:.1f} s, measuring {measured:.1f} s; {options.work}/index.html")


def _rendered(reference: Path, protocol: Protocol, count: int) -> list[Case]:
    """People whom the renderer draws, with their voices' phonemes."""
    reference.mkdir(parents=True, exist_ok=True)
    renderer, cases = None, []
    for number in range(FIRST, FIRST + count):
        base = reference / f"drawn-{number}"
        truth, sound, picture, phonemes = (
            base.with_suffix(each) for each in (".mp4", ".wav", ".png", ".phonemes.json")
        )
        if not truth.exists():
            renderer = renderer or Renderer((protocol.height, protocol.width))
            said = voice(number, protocol.frames / protocol.fps)
            subject, _ = drawn("test", number, "realistic")
            shown, _ = true_video(renderer, subject, speaking_motion(said, number))
            write_sound(sound, said.waveform)
            phonemes.write_text(json.dumps(said.phonemes, ensure_ascii=False))
            media.write_image(picture, portrait(renderer, subject)[0])
            _write(truth, shown.frames, protocol.fps, sound)
        cases.append(Case(base.name, truth, sound, picture, phonemes))
    return cases


def _filmed(reference: Path, protocol: Protocol, footage: Path | None, count: int) -> list[Case]:
    """Real people; GRID's recordings say in their names what is said, so that their phonemes can be aligned."""
    if footage is None:
        return []
    from skyreels_audio.synthetic.voices import recording

    cut = protocol.model_copy(update={"clips": count, "crop": "face"})
    cases, _ = prepare(footage, reference, cut)
    found = []
    for case in cases:
        phonemes = reference / f"{case.name}.phonemes.json"
        source = footage / f"{case.name}.mp4"
        if not phonemes.exists() and case.name.startswith("grid-") and source.exists():
            phonemes.write_text(json.dumps(recording(source).phonemes, ensure_ascii=False))
        found.append(Case(case.name, case.truth, case.voice, case.portrait, phonemes if phonemes.exists() else None))
    return found


def _generate(model: Path, cases: list[Case], generated: Path, protocol: Protocol) -> float:
    """The videos that are missing; returns the seconds that they took."""
    generated.mkdir(parents=True, exist_ok=True)
    missing = [case for case in cases if not (generated / f"{case.name}.mp4").exists()]
    started = time.perf_counter()
    if missing:
        fast = torch.cpu.get_capabilities().get("avx512_bf16")
        pipe = SkyReelsAudioPipeline.from_pretrained(str(model), dtype=torch.bfloat16 if fast else torch.float32)
        pipe.set_progress_bar_config(disable=True)
        started = time.perf_counter()
        for number, case in enumerate(missing):
            assert case.portrait and case.voice
            generator = torch.Generator().manual_seed(number)
            video = pipe(media.read_image(case.portrait), media.read_audio(case.voice), PROMPT, generator=generator)
            _write(generated / f"{case.name}.mp4", np.stack(list(video.frames)), protocol.fps, case.voice)
    return time.perf_counter() - started


def _write(path: Path, frames: np.ndarray, fps: float, sound: Path) -> None:
    with media.VideoWriter(path, frames.shape[2], frames.shape[1], fps, sound) as writer:
        for frame in frames:
            writer.write(frame)


if __name__ == "__main__":
    main()
