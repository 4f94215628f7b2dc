"""Several processes make the video that one makes. They are forked, so that they need not import everything again."""

import math
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skyreels_audio.acceleration.accelerate import Acceleration, accelerated
from skyreels_audio.acceleration.distributed import Parallel, parallelise, plan_parallel, process_group
from skyreels_audio.acceleration.teacache import SkipPlan, TeaCacheVelocity
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.encoders import encode_conditions, encode_prompts
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.generation.sampling import sample
from skyreels_audio.generation.step import Batched, Distributed, Executor, TransformerVelocity, Velocity
from skyreels_audio.generation.windows import Windows

STEPS, LATENTS = 4, 8
HEADS = 2  # of the tiny pipeline


@pytest.fixture(scope="module")
def conditions(pipeline: SkyReelsAudioPipeline, portrait, voice) -> Conditions:
    """Windows of 5 latents of 1 x 7 patches: 35 tokens, which neither 2 nor 3 nor 4 divides."""
    size = pipeline.settings(height=32, width=224)
    frame = torch.randint(
        0, 256, (1, 32, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
    ).numpy()
    text_2SD = encode_prompts(pipeline, "a voice", "", None, None, size)
    return encode_conditions(pipeline, frame, None, torch.tensor(voice), text_2SD, LATENTS, size)


def video(
    pipeline: SkyReelsAudioPipeline, conditions: Conditions, cached: bool, parallel: Parallel | None
) -> tuple[Tensor, list[int]]:
    """Latents of two windows and three branches, sampled by this process or by all of its group.

    Also the number of tokens at each run of the blocks in this process.
    """
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(STEPS)
    velocity: Velocity = TransformerVelocity(pipeline.transformer)
    if cached:
        plan = SkipPlan(tuple(scheduler.timesteps.tolist()), (True, False, True, False))
        velocity = TeaCacheVelocity(pipeline.transformer, plan)

    execute: Executor = Batched(velocity)
    if parallel is not None:
        group = parallelise(pipeline.transformer, parallel, torch.device("cpu"))
        if parallel.calls > 1:
            execute = Distributed(execute, group)
    # The first step has one branch.
    guidance = Guidance(Scale.parse("interval:4.5@0.2-1"), Scale.parse("interval:2@0.2-1"))
    noise = torch.randn(1, 8, LATENTS, 2, 14, generator=torch.Generator().manual_seed(6))
    tokens: list[int] = []
    first: Any = pipeline.transformer.blocks[0]
    watch = first.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[1]))
    latents_BCTHW = sample(execute, scheduler, noise, conditions, guidance, Windows(5, 2))
    watch.remove()
    return latents_BCTHW, tokens


def on_ranks(ranks: int, work: Callable[[int], Any], folder: Path) -> list[int | None]:
    """Run ``work(rank)`` in forked processes as torchrun would; results lie in ``folder``. Returns exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def enter(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.set_num_threads(1)  # the threads of the parent do not survive the fork
        try:
            with process_group("cpu"):
                torch.save(work(rank), folder / f"{rank}.pt")
        except ConnectionError as error:
            (folder / f"{rank}.txt").write_text(str(error))
            os._exit(1)

    processes = [multiprocessing.get_context("fork").Process(target=enter, args=(rank,)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
    return [process.exitcode for process in processes]


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        (2, "ulysses=2"),
        (2, "ring=2"),
        (3, "ring=3"),
        (3, "branch=3"),
        (4, "ulysses=2,ring=2"),
        (4, "ulysses=2,window=2"),
    ],
)
def test_parallel_equals_serial(pipeline, conditions, tmp_path, ranks, words):
    parallel = Parallel.parse(words, ranks, HEADS)
    for cached in (False, True):
        expected, whole = video(pipeline, conditions, cached, None)
        assert set(whole) == {35}
        assert (
            on_ranks(ranks, lambda rank, cached=cached: video(pipeline, conditions, cached, parallel), tmp_path)
            == [0] * ranks
        )
        shares = []
        for rank in range(ranks):
            result, tokens = torch.load(tmp_path / f"{rank}.pt")
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
            assert set(tokens) == {math.ceil(35 / parallel.tokens)}
            shares.append(len(tokens))
        assert sum(shares) == parallel.tokens * len(whole)  # nothing is done twice,
        assert max(shares) * parallel.calls <= 1.3 * len(whole)  # and nobody does much more than others


@pytest.mark.parametrize("words", [None, "ulysses=2"])
def test_a_whole_run_is_shared_and_goes_on_where_it_stopped(pipeline, portrait, voice, tmp_path, words):
    """As the command does it: two windows, three branches; the first process keeps the state, all go on from it."""

    class Interrupted(Exception):
        pass

    def run(state: Path, parallel: str | None = None, until: int = STEPS) -> Tensor:
        def interrupt(phase: str, done: int, total: int) -> None:
            if phase == "sample" and done == until < STEPS:
                raise Interrupted

        inputs = {"image": portrait, "audio": voice, "num_inference_steps": STEPS, "resume": state}
        noise, how = torch.Generator().manual_seed(0), pipeline.settings(num_inference_steps=STEPS)
        with suppress(Interrupted), accelerated(pipeline, Acceleration(parallel=parallel), how):
            pipeline(**inputs, generator=noise, progress=interrupt)
        return torch.load(state)["latents"]

    expected, state = run(tmp_path / "alone"), tmp_path / "state"
    assert on_ranks(2, lambda rank: (run(state, words, until=2), None)[1], tmp_path) == [0, 0]
    assert torch.load(state)["finished"] == 2
    assert on_ranks(2, lambda rank: (run(state, words), None)[1], tmp_path) == [0, 0]
    assert torch.load(state)["finished"] == STEPS
    torch.testing.assert_close(torch.load(state)["latents"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_others_with_a_message(pipeline, conditions, tmp_path, lost):
    def work(rank: int) -> Any:
        calls = []

        def die(module, inputs) -> None:
            calls.append(rank)
            if rank == lost and len(calls) == 5:
                os._exit(9)

        second: Any = pipeline.transformer.blocks[1]
        second.register_forward_pre_hook(die)
        return video(pipeline, conditions, False, Parallel(ring=3))

    start = time.monotonic()
    codes = on_ranks(3, work, tmp_path)
    assert codes == [9 if rank == lost else 1 for rank in range(3)]
    assert time.monotonic() - start < 30
    for rank in {0, 1, 2} - {lost}:
        assert f"rank {rank} of 3 stops because another rank was lost" in (tmp_path / f"{rank}.txt").read_text()


@pytest.mark.parametrize("words", ["ulysses", "ulysses=0", "ulysses=x", "pipes=2", "", "ulysses=1,ulysses=2", "ring=3"])
def test_words_that_make_no_sense_are_refused(words):
    with pytest.raises(ValueError, match="--parallel"):
        Parallel.parse(words, 2, HEADS)


def test_heads_must_be_shared_equally():
    with pytest.raises(ValueError, match="12 attention heads"):
        Parallel.parse("ulysses=8", 8, 12)


@settings(deadline=None, max_examples=40)
@given(
    ranks=st.integers(1, 16), heads=st.sampled_from([2, 12, 40]), branches=st.integers(1, 3), windows=st.integers(1, 9)
)
def test_the_planner_uses_every_rank_and_can_be_carried_out(ranks, heads, branches, windows):
    plan = plan_parallel(ranks, heads, 128 * heads, 20_000, branches, windows)
    words = ",".join(f"{name}={degree}" for name, degree in vars(plan).items())
    assert Parallel.parse(words, ranks, heads) == plan


def test_the_planner_shares_tokens_of_one_call_and_spreads_many_calls():
    wan_14b = dict(heads=40, width=5120, tokens=42840)
    assert plan_parallel(8, **wan_14b, branches=1, windows=1) == Parallel(ulysses=8)
    assert plan_parallel(3, **wan_14b, branches=1, windows=1) == Parallel(ring=3)
    assert plan_parallel(3, **wan_14b, branches=3, windows=1) == Parallel(branch=3)
    assert plan_parallel(4, **wan_14b, branches=1, windows=4) == Parallel(window=4)
    assert plan_parallel(4, **wan_14b, branches=1, windows=5).calls < 4  # one rank would compute two, the others wait


def test_one_process_needs_no_group():
    with process_group("cpu") as device:
        assert device == torch.device("cpu") and not torch.distributed.is_initialized()
