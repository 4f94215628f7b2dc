"""The review page in a real browser, by keyboard alone; its answers on disk."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from curation_support import quick_recipe, scene, sound, write

from skyreels_audio.curation.audit import Answer, Answers, audit, passed, sample
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.select import Verdict

CHROMIUM = shutil.which("chromium")
DONE = {stage.name: stage.version for stage in quick_recipe().stages.active()}


@pytest.fixture
def verdicts(tmp_path: Path) -> list[Verdict]:
    path = str(write(tmp_path / "v.mp4", scene(0, 50), sound(0, 2.0)))
    clips = [Clip(f"c{k}", path, k * 0.4, k * 0.4 + 0.4, DONE, seconds=0.4, caption=f"clip {k}") for k in range(4)]
    return [Verdict(clip) for clip in clips] + [Verdict(Clip("bad", path, stages=DONE), ("split.seconds",))]


def test_a_stage_shows_what_it_and_those_before_let_through(verdicts: list[Verdict]) -> None:
    assert [clip.id for clip in passed(verdicts, "split")] == ["c0", "c1", "c2", "c3"]
    assert [clip.id for clip in passed(verdicts, "probe")] == ["c0", "c1", "c2", "c3", "bad"]
    assert passed(verdicts, "audio") == []  # has not run


def test_answers_outlive_a_crash_and_reviewers_see_the_same_clips(verdicts: list[Verdict], tmp_path: Path) -> None:
    answers, clips, recipe = Answers(tmp_path), passed(verdicts, "split"), quick_recipe()
    orders = {}
    for reviewer in ("ann", "bob"):
        orders[reviewer] = []
        while (clip := sample(clips, "split", reviewer, answers.all())) is not None:
            orders[reviewer].append(clip.id)
            answers.add(Answer("split", clip.id, reviewer, clip.id == "c1", None, time.time()))
    assert orders["ann"] == orders["bob"] and sorted(orders["ann"]) == ["c0", "c1", "c2", "c3"]
    with (tmp_path / "audit" / "bob.jsonl").open("a") as file:
        file.write('{"stage": "split", "clip": "c0", "rev')  # a crash in the middle of a line
    answers.add(Answer("split", "c2", "ann", True, "other", time.time()))  # a change of mind
    found = audit("split", answers.all(), recipe)
    assert (found.reviewed, found.bad, found.decision) == (4, 2, "reject")
    assert found.kappa == pytest.approx(0.5)


@pytest.fixture
def page(verdicts: list[Verdict], tmp_path: Path) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    from skyreels_audio.curation.review_page import review_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(review_app(verdicts, quick_recipe(), tmp_path), "127.0.0.1", port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_clips_are_judged_by_keyboard_and_nothing_is_lost_on_reload(page: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            tab = browser.new_page()
            tab.set_default_timeout(60_000)
            tab.goto(f"{page}/?stage=split")
            tab.keyboard.type("ann")
            tab.keyboard.press("Enter")
            tab.wait_for_function("document.body.dataset.clip")
            tab.wait_for_function("document.querySelector('video').readyState >= 2")  # it plays
            shown = []
            for key in ("g", "2"):
                shown.append(tab.evaluate("document.body.dataset.clip"))
                tab.keyboard.press(key)
                tab.wait_for_function("before => document.body.dataset.clip !== before", arg=shown[-1])
            rows = [json.loads(line) for line in (tmp_path / "audit" / "ann.jsonl").read_text().splitlines()]
            assert [(row["clip"], row["bad"]) for row in rows] == [(shown[0], False), (shown[1], True)]
            assert rows[1]["why"] == "not one person"
            third = tab.evaluate("document.body.dataset.clip")
            tab.reload()
            tab.wait_for_function("document.body.dataset.clip")
            assert tab.evaluate("document.body.dataset.clip") == third
            assert tab.inner_text("tr[aria-current] td:nth-child(2)") == "2"
        finally:
            browser.close()
