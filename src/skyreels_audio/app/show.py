"""HTML of what the page shows of a job: how far it is, the video, earlier ones, and what was found in a picture."""

import time
from html import escape
from typing import Any
from urllib.parse import quote

from skyreels_audio.app.jobs import Job, Status

PHASES = {
    "load": "Getting ready",
    "track": "Following the face",
    "crop": "Cutting out the face",
    "portrait": "Making a portrait from the words",
    "encode": "Hearing the voice",
    "sample": "Making the motion",
    "decode": "Painting the frames",
    "write": "Painting the frames",
}


def progress(status: Status) -> str:
    """What is going on, for eyes and screen readers."""
    if status.state == "waiting":
        ahead = (status.position or 1) - 1
        place = "next in line" if ahead == 0 else f"number {ahead + 1} in line"
        return f"<p><strong>Waiting</strong>, {place}.{_left(status.seconds_left, ' Once it starts it takes')}</p>"
    if status.state == "running":
        phase = PHASES.get(status.phase or "", (status.phase or "").capitalize())
        again = f" (attempt {status.attempt}: the one before was cut off)" if status.attempt > 1 else ""
        share = status.done / status.total if status.total else 0.0
        bar = f'<progress max="1" value="{share:.3f}" aria-label="{escape(phase)}">{share:.0%}</progress>'
        picture = ""
        if status.phase in ("decode", "write"):  # the time in the address makes the browser ask again
            address = f"/api/jobs/{status.id}/preview?at={time.time():.1f}"
            picture = f'<img class="preview" src="{address}" alt="The latest frame" onerror="this.hidden=true">'
        return f"<p><strong>{escape(phase)}</strong>{again}.{_left(status.seconds_left, ' Left:')}</p>{bar}{picture}"
    if status.state == "failed":
        return f'<p class="failed"><strong>It did not work.</strong> {escape(status.message or "")}</p>'
    return "<p><strong>Cancelled.</strong></p>" if status.state == "cancelled" else "<p><strong>Done.</strong></p>"


def _left(seconds: float | None, before: str) -> str:
    return "" if seconds is None else f"{before} about {duration(seconds)}."


def duration(seconds: float) -> str:
    """In words: "4 s", "3 min"."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def result(job: Job, status: Status) -> str:
    """The video beside its source, to save, with its report."""
    address = f"/api/jobs/{job.id}"
    source = next((name for name in job.inputs if not name.startswith("voice")), None)
    beside = ""
    if source is not None:
        given = f"{address}/source/{quote(source)}"
        shown = f'<img src="{given}" alt="The picture that was given">'
        if not source.endswith(".png"):
            shown = f'<video src="{given}" controls muted playsinline aria-label="The video that was given"></video>'
        beside = f"<figure>{shown}<figcaption>Given</figcaption></figure>"
    video = status.video or {}
    size = f"{video.get('width')} × {video.get('height')}, {video.get('num_frames', 0) / (video.get('fps') or 1):.1f} s"
    made = f'<video class="made" src="{address}/result" controls playsinline aria-label="The talking video"></video>'
    return (
        f'<div class="pair"><figure>{made}<figcaption>Made ({size})</figcaption></figure>{beside}</div>'
        f'<p><a class="save" href="{address}/result?save=true" download>Save the video</a> · '
        f'<a href="{address}/report?save=true" download>Its report</a> · '
        f'<a href="{address}/sheet" target="_blank" rel="noopener">Contact sheet</a></p>'
        "<p>The file says in its metadata that it is AI-generated.</p>"
    )


def gallery(jobs: list[tuple[Job, Status]]) -> str:
    """Earlier videos, newest first."""
    if not jobs:
        return "<p>Your videos will be listed here. They stay when the page or the server is started again.</p>"
    cards = []
    for job, _ in jobs:
        when = time.strftime("%d %b %H:%M", time.localtime(job.created))
        words = escape(job.request.get("prompt", "")[:60]) or f"preset “{job.request['preset']}”"
        video = f'<video src="/api/jobs/{job.id}/result#t=0.1" preload="metadata" controls playsinline '
        video += f'aria-label="{words}, {when}"></video>'
        cards.append(f"<li>{video}<span>{words}<br>{when}</span></li>")
    return f'<ul class="gallery">{"".join(cards)}</ul>'


def found(about: dict[str, Any], address: str) -> str:
    """A picture with the face and the region that will move drawn into it, and the same in words."""
    if not about["faces"]:
        return "<p><strong>No face was found here.</strong> The whole picture will be used as it is.</p>"
    width, height = about["width"], about["height"]
    boxes = "".join(
        f'<rect class="{name}" x="{box[0]}" y="{box[1]}" width="{box[2] - box[0]}" height="{box[3] - box[1]}"/>'
        for name in ("face", "region")
        if (box := about.get(name))
    )
    more = "" if about["faces"] == 1 else f" of {about['faces']}; another can be chosen under Advanced"
    text = f"The face that will speak is framed{more}. The mouth moves in the dashed frame."
    if "frames" in about:
        text = f"The face that will speak is framed{more}. It is followed through {about['frames']} frames."
        text += "".join(
            f" Frames {span['first']} to {span['last']} stay as they are: {escape(span['reason'])}."
            for span in about["kept"]
        )
    drawing = f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{boxes}</svg>'
    picture = f'<img src="{escape(address)}" alt="The face that was found">'
    return f'<div class="found">{picture}{drawing}</div><p>{text}</p>'
