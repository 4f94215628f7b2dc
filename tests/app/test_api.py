"""The API: jobs from submission to video, what belongs to whom, and what is refused."""

import io
import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from running import PATIENCE, Running, ended, picture, submit, voice, wait_until

from skyreels_audio.app.options import Options
from skyreels_audio.media import AI_GENERATED, InputError, probe_video, read_audio


def test_a_job_becomes_a_video_with_the_voice(client: httpx.Client, folder: Path) -> None:
    files = {
        "picture": ("../../p.png", picture(folder / "p.png").read_bytes()),
        "voice": ("v.wav", voice(folder / "v.wav", 0.6).read_bytes()),
    }
    job = client.post("/api/jobs", files=files, data={"consent": "true"}).json()
    assert job["state"] in ("waiting", "running")
    assert ended(client, job["id"])["state"] == "finished"
    video = client.get(f"/api/jobs/{job['id']}/result")
    assert video.headers["content-type"] == "video/mp4"
    (folder / "got.mp4").write_bytes(video.content)
    info = probe_video(folder / "got.mp4")
    assert info.frames == 15 and info.has_audio
    given, got = read_audio(folder / "v.wav"), read_audio(folder / "got.mp4")
    assert np.corrcoef(given[:9000], got[:9000])[0, 1] > 0.99
    assert AI_GENERATED.encode() in video.content
    assert client.get(f"/api/jobs/{job['id']}/report").json() == {"stub": True}
    assert client.get(f"/api/jobs/{job['id']}/sheet").content.startswith(b"\x89PNG")
    assert [each["id"] for each in client.get("/api/jobs").json()] == [job["id"]]


def test_byte_ranges_are_those_of_the_whole(client: httpx.Client, folder: Path) -> None:
    job = submit(client, folder)
    ended(client, job["id"])
    address = f"/api/jobs/{job['id']}/result"
    whole = client.get(address).content
    for asked, part in (("0-99", whole[:100]), ("100-", whole[100:]), ("-50", whole[-50:])):
        answer = client.get(address, headers={"range": f"bytes={asked}"})
        assert answer.status_code == 206 and answer.content == part
        assert answer.headers["content-range"].endswith(f"/{len(whole)}")
    assert client.get(address, headers={"range": f"bytes={len(whole)}-"}).status_code == 416


def test_nobody_else_sees_a_job(running: Running, client: httpx.Client, folder: Path) -> None:
    job = submit(client, folder)
    ended(client, job["id"])
    with running.client() as stranger:
        for address in ("", "/events", "/result", "/report", "/sheet", "/preview", "/source/voice.wav"):
            assert stranger.get(f"/api/jobs/{job['id']}{address}").status_code == 404
        assert stranger.delete(f"/api/jobs/{job['id']}").status_code == 404
        assert stranger.get("/api/jobs").json() == []
    assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "finished"


def test_events_tell_the_whole_story(running: Running, client: httpx.Client, folder: Path) -> None:
    job = submit(client, folder, prompt="held told")
    states, phases, end = [], set(), time.monotonic() + PATIENCE
    with client.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                status = json.loads(line[6:])
                states.append(status["state"])
                phases.add(status["phase"])
                if status["phase"] == "sample":
                    running.release("told")
            assert time.monotonic() < end
    order = [state for index, state in enumerate(states) if states[index - 1 : index] != [state]]
    assert order in (["waiting", "running", "finished"], ["running", "finished"]) and "sample" in phases


def test_cancelling_ends_a_running_and_a_waiting_job(client: httpx.Client, folder: Path) -> None:
    running, waiting = submit(client, folder, prompt="held for_ever"), submit(client, folder)
    wait_until(lambda: client.get(f"/api/jobs/{running['id']}").json()["phase"] == "sample")
    assert client.get(f"/api/jobs/{waiting['id']}").json()["position"] == 1
    assert client.delete(f"/api/jobs/{waiting['id']}").json()["state"] == "cancelled"
    client.delete(f"/api/jobs/{running['id']}")
    assert ended(client, running["id"])["state"] == "cancelled"
    assert client.get(f"/api/jobs/{running['id']}/result").status_code == 409
    client.delete(f"/api/jobs/{running['id']}")  # a second time deletes
    assert client.get(f"/api/jobs/{running['id']}").status_code == 404


def test_a_crash_is_tried_again_then_told_and_frees_the_device(client: httpx.Client, folder: Path) -> None:
    crash, after = submit(client, folder, prompt="crash"), submit(client, folder)
    assert ended(client, after["id"])["state"] == "finished"
    status = ended(client, crash["id"])
    assert status["state"] == "failed" and "died" in status["message"]


@pytest.mark.parametrize(("prompt", "sentence"), [("breaks", "went wrong"), ("no face", "voice.wav: no face")])
def test_a_failure_is_a_sentence_without_paths(client: httpx.Client, folder: Path, prompt: str, sentence: str) -> None:
    status = ended(client, submit(client, folder, prompt=prompt)["id"])
    assert status["state"] == "failed" and sentence in status["message"] and "/tmp" not in status["message"]


def test_a_text_is_spoken(client: httpx.Client, folder: Path) -> None:
    speakers = client.get("/api/server").json()["speakers"]
    if not speakers:
        pytest.skip("no speech synthesizer is installed")
    answer = client.post("/api/jobs", data={"prompt": "a woman", "text": "--version; $(id)", "speaker": speakers[0]})
    assert answer.status_code == 202, answer.text
    assert ended(client, answer.json()["id"])["state"] == "finished"
    answer = client.post("/api/jobs", data={"prompt": "a woman", "text": "hello", "speaker": "nobody"})
    assert answer.status_code == 422 and "nobody" in answer.json()["detail"]


def test_what_is_missing_is_said(client: httpx.Client, folder: Path) -> None:
    sound = {"voice": voice(folder / "v.wav").read_bytes()}
    both = sound | {"picture": picture(folder / "p.png").read_bytes()}
    for files, fields, word in (
        ({"picture": both["picture"]}, {"consent": "true"}, "voice"),
        (sound, {}, "words"),
        (both, {"consent": "false"}, "agree"),
        (both, {"consent": "true", "motion": "7"}, "motion"),
    ):
        answer = client.post("/api/jobs", files=files, data=fields)
        assert answer.status_code == 422 and word in answer.text, answer.text


def bomb() -> bytes:
    """A few kilobytes that say they are 30 000 × 30 000 pixels."""
    data = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(data, "png", compress_level=9)
    return data.getvalue()


WRONG = {
    "text": b"hello, world, this is no media file at all",
    "nothing": b"",
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a drawing": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "an archive": b"PK\x03\x04" + bytes(200),
    "a cut picture": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "a cut video": b"\x00\x00\x00\x20ftypisom" + bytes(100),
    "a cut sound": b"RIFF\xff\xff\xff\x7fWAVEfmt " + bytes(20),
    "a bomb": bomb(),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_refused_with_a_sentence(
    running: Running, client: httpx.Client, folder: Path, what: str
) -> None:
    right = {"picture": picture(folder / "p.png").read_bytes(), "voice": voice(folder / "v.wav").read_bytes()}
    for field in ("picture", "video"):
        files = {field: ("/etc/passwd", WRONG[what]), "voice": right["voice"]}
        answer = client.post("/api/jobs", files=files, data={"consent": "true"})
        assert answer.status_code == 422, answer.text
        assert "/tmp" not in answer.text and "Traceback" not in answer.text


def test_a_text_file_as_voice_leaves_nothing(running: Running, client: httpx.Client) -> None:
    answer = client.post("/api/jobs", files={"voice": b"hello"}, data={"prompt": "a man"})
    assert answer.status_code == 422 and "no kind" in answer.json()["detail"]
    folders = running.options.folder / "uploads"
    assert not [path for path in folders.rglob("*") if path.is_file()]


def test_a_polyglot_leaves_only_its_pixels(running: Running, client: httpx.Client, folder: Path) -> None:
    mixed = picture(folder / "p.png").read_bytes() + b"PK\x03\x04<script>alert(1)</script>"
    files = {"picture": mixed, "voice": voice(folder / "v.wav").read_bytes()}
    job = client.post("/api/jobs", files=files, data={"consent": "true"}).json()
    ended(client, job["id"])
    kept = client.get(f"/api/jobs/{job['id']}/source/picture.png").content
    pixels, given = (np.asarray(Image.open(file)) for file in (io.BytesIO(kept), folder / "p.png"))
    assert b"script" not in kept and np.array_equal(pixels, given)


@pytest.mark.parametrize("name", ["../picture.png", "..%2fpicture.png", "%2fetc%2fpasswd", "voice.wav%00"])
def test_no_address_leads_out_of_a_job(client: httpx.Client, folder: Path, name: str) -> None:
    job = submit(client, folder)
    assert client.get(f"/api/jobs/{job['id']}/source/{name}").status_code in (404, 422)


def test_other_sites_and_other_names_are_not_answered(client: httpx.Client) -> None:
    answer = client.post("/api/jobs", headers={"origin": "http://evil.example"}, data={"prompt": "x"})
    assert answer.status_code == 403
    assert client.get("/api/server", headers={"host": "evil.example:80"}).status_code == 403
    assert "access-control-allow-origin" not in client.get("/api/server").headers


def test_a_server_beyond_this_machine_needs_a_token() -> None:
    with pytest.raises(InputError, match="--token"):
        Options(model="m", data="d", host="0.0.0.0")
    with pytest.raises(InputError, match="too short"):
        Options(model="m", data="d", host="0.0.0.0", token="abc")
    assert not Options(model="m", data="d", host="0.0.0.0", token="a long enough token").loopback


def test_the_openapi_page_describes_the_jobs(client: httpx.Client) -> None:
    described = client.get("/api/openapi.json").json()["paths"]
    fields = described["/api/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "$ref" in fields and "/api/jobs/{id}/events" in described
    assert client.get("/api/docs").status_code == 200
