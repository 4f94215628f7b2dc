"""skyreels-audio benchmark --suite: a checkpoint's videos of a benchmark suite."""

import logging
from pathlib import Path

from skyreels_audio.cli.progress import Progress

log = logging.getLogger(__name__)


def parse_shard(text: str) -> tuple[int, int]:
    """Which part of how many, from "2/8"; counted from 1. Raises InputError."""
    from skyreels_audio.media import InputError

    part, _, count = text.partition("/")
    if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        raise InputError(f"--shard is a part of so many, such as 1/4, not {text!r}.")
    return int(part) - 1, int(count)


def run_suite(name: str, subset: int, model: Path, out: Path, shard: str, device: str, dtype: str) -> str:
    """Make what is missing of the suite's inputs and of this shard's videos. Returns what to tell."""
    import torch

    from skyreels_audio import SkyReelsAudioPipeline
    from skyreels_audio.cli.options import needs_extra
    from skyreels_audio.evaluation.suite import load_suite, make_inputs, make_videos
    from skyreels_audio.media import InputError

    suite, part = load_suite(name), parse_shard(shard)
    if subset > len(suite.cases):
        raise InputError(f"--subset: {suite.name} has {len(suite.cases)} cases.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16")
    precision = getattr(torch, dtype) if dtype != "auto" else torch.bfloat16 if fast else torch.float32
    with Progress() as progress, needs_extra("synthetic"):
        pipe = SkyReelsAudioPipeline.from_pretrained(str(model), dtype=precision).to(device)
        pipe.set_progress_bar_config(disable=True)
        settings = pipe.settings()
        try:
            cases = make_inputs(suite, out, subset, (settings.height, settings.width), progress)
        except ValueError as error:  # a synthesizer is not installed
            raise InputError(str(error)) from error
        failed = make_videos(cases, pipe, out, part, progress)
        for case, reason in failed.items():
            log.warning("%s failed: %s", case, reason)
    made = len(cases[part[0] :: part[1]]) - len(failed)
    return (
        f"{out / 'videos'}: {made} videos of {suite.name}; score them with "
        f"`skyreels-audio evaluate --generated {out / 'videos'} --reference {out} --protocol internal`"
    )
