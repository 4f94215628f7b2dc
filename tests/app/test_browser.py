"""The page in headless Chromium, with real files, a real queue and the stub renderer.

``SCREENSHOTS=docs/images/app make test-browser`` writes the pictures of docs/app.md.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import PATIENCE, Running, ended, picture, voice

from skyreels_audio.bundled import bundled

pytest.importorskip("gradio", reason="the extra [app] is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
SCREENSHOTS = os.environ.get("SCREENSHOTS")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; on Debian: apt install chromium")
# Each takes minutes on a busy machine.
slow = pytest.mark.skipif(not os.environ.get("BROWSER_TESTS"), reason="minutes on a busy machine: make test-browser")

FLAGS = ["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required", "--disable-gpu"]
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("page") / "data"
    server = Running(data, page=True, speaker="stub_speaker:StubSpeaker", requests_per_minute=1000)
    server.know_speeds()
    with server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture
def visit(server: Running, browser: Any) -> Iterator[Any]:
    """A visitor's page: ``visit(**options of a browser context)``."""
    contexts = []

    def new(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Make the video").wait_for()
        return page

    yield new
    for context in contexts:
        context.close()


def shoot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.jpg", full_page=True, type="jpeg", quality=70)


def give(page: Any, prompt: str = "", folder: Path | None = None) -> None:
    """The examples, or files of one's own, and the consent."""
    if folder is None:
        page.get_by_role("button", name="Use the example portrait").click()
        page.get_by_role("button", name="Use the example voice").click()
    else:
        page.locator("#picture input[type=file]").set_input_files(picture(folder / "p.png"))
        page.locator("#voice input[type=file]").set_input_files(voice(folder / "v.wav"))
    page.locator("#picture img").first.wait_for()
    page.wait_for_function("document.querySelector('#preset').innerText.includes('about')")  # the voice is there
    page.locator("#consent input").check()
    page.get_by_label("Describe them").fill(prompt)


def make(page: Any) -> None:
    page.get_by_role("button", name="Make the video").click()


def plays(page: Any, selector: str) -> None:
    """The video shows pictures and its sound is decoded."""
    page.wait_for_function("(s) => document.querySelector(s)?.readyState >= 2", arg=selector)
    page.evaluate("(s) => document.querySelector(s).play()", selector)
    heard = "(v => v.currentTime > 0.2 && v.videoWidth > 0 && v.webkitAudioDecodedByteCount > 0)"
    page.wait_for_function(f"(s) => {heard}(document.querySelector(s))", arg=selector)


def faults(page: Any) -> list[str]:
    """What axe finds that keeps people out, with every element."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {node['html'][:160]}" for each in serious for node in each["nodes"]]


def test_a_newcomer_gets_from_nothing_to_a_video_with_sound(visit: Any) -> None:
    page = visit()
    shoot(page, "empty")
    give(page)
    page.get_by_role("button", name="See which face will speak").click()
    page.locator("#found rect.region").wait_for(state="attached")
    shoot(page, "found")
    make(page)
    page.locator("#result video.made").wait_for()
    plays(page, "#result video.made")
    shoot(page, "done")
    assert page.locator("#gallery li").count() == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the video").click()
    assert download.value.path().stat().st_size > 1000


@slow
def test_a_running_video_is_seen_survives_a_reload_and_is_cancelled(visit: Any) -> None:
    page = visit()
    give(page, "held for_ever")
    make(page)
    page.locator("#progress progress").wait_for()
    shoot(page, "running")
    page.reload()
    page.locator("#progress progress").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function("document.querySelector('#progress').innerText.includes('Cancelled')")
    assert not page.get_by_role("button", name="Cancel").is_visible()


@slow
def test_two_visitors_do_not_see_each_other(visit: Any, tmp_path: Path) -> None:
    one, two = visit(), visit()
    for page in (one, two):
        give(page, "", tmp_path)
        make(page)
    addresses = []
    for page in (one, two):
        page.locator("#result video.made").wait_for()
        assert page.locator("#gallery li").count() == 1
        addresses.append(page.locator("#result video.made").get_attribute("src"))
    assert addresses[0] != addresses[1]
    assert one.request.get(one.url.rstrip("/") + addresses[1]).status == 404


@slow
def test_wrong_files_and_missing_ones_are_told(visit: Any, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "p.png").write_bytes(b"this is no picture")
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "p.png")
    told = page.get_by_text("of no kind that is taken").first.element_handle()
    faded_in = "(e) => { while (e && getComputedStyle(e).opacity == 1) e = e.parentElement; return !e; }"
    page.wait_for_function(faded_in, arg=told)
    shoot(page, "refused")
    make(page)
    page.locator("#progress .failed", has_text="A voice is missing").wait_for()


@slow
def test_a_phone_in_the_dark_shows_it_all(visit: Any) -> None:
    page = visit(viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    give(page)
    make(page)
    page.locator("#result video.made").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    shoot(page, "phone")
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").wait_for()
    ends = "[...document.querySelectorAll('#live *')].map((each) => each.getBoundingClientRect().right)"
    assert page.evaluate(f"Math.max(document.documentElement.scrollWidth, ...{ends})") <= PHONE["width"]
    shoot(page, "live-phone")


@slow
def test_the_keyboard_alone_is_enough(visit: Any, tmp_path: Path) -> None:
    page = visit()
    give(page, "", tmp_path)
    page.locator("#consent input").focus()
    for _ in range(40):  # on to the button, whatever stands between
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id === 'make'"):
            break
    page.keyboard.press("Enter")
    page.locator("#result video.made").wait_for()


@slow
@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark", "viewport": PHONE}], ids=["desk", "phone_in_the_dark"])
def test_axe_finds_nothing_that_keeps_people_out(visit: Any, server: Running, look: dict[str, Any]) -> None:
    page, held = visit(**look), f"axe_{len(look)}"
    found = {"start": faults(page)}
    give(page, f"held {held}")
    page.get_by_role("button", name="See which face will speak").click()
    page.locator("#found rect.region").wait_for(state="attached")
    page.get_by_role("button", name="Advanced").click()
    page.get_by_label("Seed").wait_for()
    found["picture and voice"] = faults(page)
    make(page)
    page.locator("#progress progress").wait_for()
    found["running"] = faults(page)
    server.release(held)
    page.locator("#result video.made").wait_for()
    page.locator("#gallery video").wait_for()
    found["result and gallery"] = faults(page)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").wait_for()
    found["live"] = faults(page)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Interrupt", disabled=False).wait_for()
    found["live, started"] = faults(page)
    assert not any(found.values()), found


@slow
def test_a_live_face_speaks_and_is_interrupted(visit: Any) -> None:
    page = visit()
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    video = "#live video"
    page.wait_for_function("(s) => document.querySelector(s).currentTime > 1", arg=video)
    page.get_by_label("Text to speak").fill("This takes a while to say, so that nobody can miss it. " * 15)
    page.get_by_role("button", name="Speak it").click()
    bright = """(s) => { const v = document.querySelector(s), c = new OffscreenCanvas(8, 8).getContext('2d');
                         c.drawImage(v, 0, 0, 8, 8); return c.getImageData(4, 4, 1, 1).data[0] > 60; }"""
    page.wait_for_function(bright, arg=video)
    shoot(page, "live")
    page.get_by_role("button", name="Interrupt").click()
    page.wait_for_function(f"(s) => !({bright})(s)", arg=video)
    page.get_by_role("button", name="End").click()


def test_gradios_own_ways_to_files_are_shut(server: Running, tmp_path: Path) -> None:
    with server.client() as one, server.client() as two:
        for address in (
            "file=/etc/passwd",
            "file=http://127.0.0.1:1/",
            "proxy=http://127.0.0.1:1/",
            "runs",
            "run/make",
        ):
            assert one.get(f"/gradio_api/{address}").status_code == 404, address
        sent = {"files": ("../../../x.png", picture(tmp_path / "p.png").read_bytes())}
        (path,) = one.post("/gradio_api/upload", files=sent).json()
        assert "x.png" not in path and one.get(f"/gradio_api/file={path}").status_code == 200
        assert two.get(f"/gradio_api/file={path}").status_code == 404
        for client, wrong in ((two, path), (one, "/etc/passwd"), (one, "http://127.0.0.1:1/a.png")):
            event = {
                "data": [{"path": wrong, "meta": {"_type": "gradio.FileData"}}],
                "fn_index": 0,
                "session_hash": "a",
            }
            assert client.post("/gradio_api/queue/join", json=event).status_code == 422


def test_the_token_opens_the_page_once_and_then_the_cookie_does(tmp_path: Path) -> None:
    with Running(tmp_path / "data", token="a token of many letters", workers=0) as guarded, guarded.client() as client:
        assert client.get("/api/server").status_code == 401
        assert client.get("/api/server", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/server", headers={"authorization": "Bearer a token of many letters"}).status_code == 200
        assert client.get("/", params={"token": "a token of many letters"}).status_code == 303
        assert client.get("/api/server").status_code == 200
        stolen = httpx.Cookies({"skyreels_session": "x" * 43 + "." + "0" * 64})
        assert httpx.get(f"{guarded.url}/api/server", cookies=stolen, timeout=PATIENCE).status_code == 401


def test_the_real_pipeline_makes_a_video(tmp_path: Path) -> None:
    """One flow without the stub: the shipped checkpoint, the example portrait, a moment of voice."""
    real = {"renderer": "skyreels_audio.app.render:Renderer", "model": str(bundled("weights/tiny"))}
    with Running(tmp_path / "data", page=False, **real) as running, running.client() as client:
        files = {
            "picture": bundled("examples/portrait.jpg").read_bytes(),
            "voice": voice(tmp_path / "v.wav", 0.6).read_bytes(),
        }
        fields = {"consent": "true", "preset": "fast"}
        job = client.post("/api/jobs", files=files, data=fields).json()
        status = ended(client, job["id"])
        assert status["state"] == "finished", status
        report = client.get(f"/api/jobs/{job['id']}/report").json()
        assert report["options"]["preset"] == "fast" and str(tmp_path) not in json.dumps(report)
