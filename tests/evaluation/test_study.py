import json
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

from skyreels_audio import media
from skyreels_audio.evaluation.study import CHECK_EVERY, QUESTIONS, Study, tally
from skyreels_audio.evaluation.study_server import StudyServer
from skyreels_audio.media import InputError

SYSTEMS = {"ours": 1.5, "peer": 1.1, "old": 0.6}  # what their videos are truly worth
CLIPS = 8
RATERS = 10


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.setattr("secrets.token_hex", lambda count: "5e" * count)  # the same orders in every run
    for system in SYSTEMS:
        (tmp_path / system).mkdir()
        for clip in range(CLIPS):
            (tmp_path / system / f"clip-{clip:02d}.mp4").write_bytes(f"{system} {clip}".encode() * 50)
    return Study.open(tmp_path / "study", [tmp_path / system for system in SYSTEMS])


def rate(study: Study, rater: str, rng: np.random.Generator, bias: float = 0.0, careful: bool = True, worth=SYSTEMS):
    """Answers everything: by the worth of the system, a bias of one's own, and noise; or without looking."""
    while (item := study.next_item(rater)[0]) is not None:
        felt = worth[item.system] + bias + 0.5 * rng.normal(size=2)
        scores = dict(zip(QUESTIONS, felt.round().clip(0, 2).astype(int).tolist(), strict=True))
        if not careful:
            scores = {question: int(rng.integers(3)) for question in QUESTIONS}
        elif item.check is not None:
            scores = item.check
        study.answer(rater, item.token, scores)


def test_the_tally_recovers_the_planted_order(study):
    rng = np.random.default_rng(0)
    for number in range(RATERS):
        rate(study, f"rater {number}", rng, bias=float(rng.normal() * 0.3))
    rate(study, "clicker", rng, careful=False)
    found = tally(study)
    assert found.excluded == ["clicker"] and found.raters == RATERS
    for question in QUESTIONS:
        means = [found.scores[system][question] for system in SYSTEMS]
        assert means[0].low > means[1].value > means[2].high
        assert found.wins["ours", "old"][question].low > 0.5
        assert 0.1 < found.agreement[question] < 0.95
    assert "| ours against peer |" in found.markdown() and "left out" in found.markdown()


def test_equal_systems_are_not_told_apart(study):
    rng = np.random.default_rng(1)
    for number in range(RATERS):
        rate(study, str(number), rng, worth=dict.fromkeys(SYSTEMS, 1.0))
    wins = [wins[question] for wins in tally(study).wins.values() for question in QUESTIONS]
    assert sum(each.low < 0.5 < each.high for each in wins) >= len(wins) - 1  # 95 % of the intervals


def test_each_rater_has_an_order_of_their_own_that_stays(study):
    first, second = study.items("a"), study.items("b")
    assert [item.token for item in first] == [item.token for item in Study.open(study.folder).items("a")]
    assert [item.token for item in first] != [item.token for item in second]
    assert {item.token for item in first if item.check is None} == set(study.videos)
    assert sum(item.check is not None for item in first) == round(len(study.videos) / CHECK_EVERY)


def test_answers_are_only_ever_appended(study):
    item = study.next_item("a")[0]
    assert item is not None
    study.answer("a", item.token, {"consistency": 2, "quality": 1})
    before = study.answers_path.read_bytes()
    study.answer("a", item.token, {"consistency": 0, "quality": 0})  # a second answer to the same page
    assert study.answers_path.read_bytes().startswith(before)
    assert [row["consistency"] for row in study.answers()] == [2]
    with study.answers_path.open("a") as file:
        file.write('{"rater": "a", "tok')  # killed while writing
    following = study.next_item("a")[0]
    assert following is not None and following.token != item.token
    study.answer("a", following.token, {"consistency": 1, "quality": 1})
    assert len(study.answers()) == 2
    for token, scores in (
        ("nothing", {"consistency": 1, "quality": 1}),
        (item.token, {"consistency": 3, "quality": 1}),
    ):
        with pytest.raises(ValueError):
            study.answer("a", token, scores)


def test_a_study_is_of_its_systems(study, tmp_path):
    with pytest.raises(InputError, match="other systems"):
        Study.open(study.folder, [tmp_path / "ours", tmp_path / "old"])
    with pytest.raises(InputError, match="two systems"):
        Study.open(tmp_path / "new", [tmp_path / "ours"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no clip"):
        Study.open(tmp_path / "new", [tmp_path / "ours", tmp_path / "empty"])
    with pytest.raises(InputError, match="no answers"):
        tally(study)


@pytest.fixture
def address(study):
    server = StudyServer(study)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def fetch(url: str, data: dict[str, str] | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    body = None if data is None else urllib.parse.urlencode(data).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_pages_do_not_tell_whose_video_it_is(address, study, tmp_path):
    status, page, _ = fetch(f"{address}/rate?rater=a")
    assert status == 200 and not any(word in page for word in (*SYSTEMS, "clip-", str(tmp_path)))
    token = next(iter(study.videos))
    system, clip = study.videos[token]
    status, part, headers = fetch(f"{address}/video/{token}", Range="bytes=2-5")
    assert status == 206 and part == (f"{system} {int(clip[5:])}" * 50)[2:6]
    assert headers["Content-Range"].startswith("bytes 2-5/")


def test_what_is_wrong_is_refused(address, study):
    assert fetch(f"{address}/video/../study.json")[0] == 404
    assert fetch(f"{address}/answer", {"rater": "a", "token": "x"})[0] == 400
    item = study.next_item("a")[0]
    assert item is not None
    whole = {"rater": "a", "token": item.token, "consistency": "1", "quality": "2"}
    assert fetch(f"{address}/answer", whole, Host="elsewhere.example")[0] == 403
    assert fetch(f"{address}/answer", whole, Origin="http://elsewhere.example")[0] == 403
    assert not study.answers()
    assert fetch(f"{address}/answer", whole)[0] == 200  # by way of the next page
    assert len(study.answers()) == 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_a_rater_in_a_browser(study, tmp_path, address):
    sync_api = pytest.importorskip("playwright.sync_api")
    with media.VideoWriter(tmp_path / "clip.mp4", 64, 64, 25) as writer:
        for level in range(10):
            writer.write(np.full((64, 64, 3), 20 * level, np.uint8))
    for system in SYSTEMS:
        for path in (tmp_path / system).iterdir():
            shutil.copy(tmp_path / "clip.mp4", path)
    with sync_api.sync_playwright() as playwright:
        chromium, patience = shutil.which("chromium"), 120_000
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=patience)
        page = browser.new_page()
        page.set_default_timeout(patience)
        page.goto(address)
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Begin").click()
        for number in range(3):
            assert (
                page.get_by_role("heading", level=1).inner_text() == f"Video {number + 1} of {len(study.items('Ada'))}"
            )
            # It plays. The page's policy forbids the evaluation that wait_for_function needs.
            sync_api.expect(page.locator("video")).to_have_js_property("readyState", 4, timeout=patience)
            page.get_by_role("button", name="Next").click()  # nothing chosen yet: the browser holds it back
            assert f"Video {number + 1} of" in page.title()
            for question in QUESTIONS.values():  # by keyboard
                page.get_by_role("group", name=question).get_by_role("radio").first.focus()
                page.keyboard.press("ArrowDown")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            page.wait_for_url("**/rate?rater=Ada")
            page.get_by_role("heading", name=f"Video {number + 2} of").wait_for()
        browser.close()
    rows = [json.loads(line) for line in study.answers_path.read_text().splitlines()]
    assert [(row["rater"], row["consistency"], row["quality"]) for row in rows] == [("Ada", 1, 1)] * 3
    assert study.next_item("Ada")[1] == 3
