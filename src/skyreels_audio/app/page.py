"""The page, in Gradio: what a person gives on one side, what comes of it on the other; Service does all the work."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from fastapi import FastAPI
from gradio.themes import Default
from pydantic import ValidationError

from skyreels_audio.app import gradio_files, show
from skyreels_audio.app.jobs import Job, Status
from skyreels_audio.app.render import PRESETS, Request
from skyreels_audio.app.sandbox import Refused
from skyreels_audio.app.service import Service, voice_seconds
from skyreels_audio.app.speech import MOST_CHARACTERS, speakers
from skyreels_audio.app.worker import estimate
from skyreels_audio.bundled import bundled

ASSETS = Path(__file__).parent / "assets"
LOOK = "See which face will speak"
MAKE = "Make the video"
WORDS = "Describe them (optional)"
CONSENT = "The people shown and heard agree to this, or they do not exist."
EXPRESSIONS = ["as in the picture", "neutral", "smiling", "sad", "surprised", "angry"]
ABOUT = "A face and a voice in, a talking video out. The examples are one click away."
MOTION = "How much the head and the eyes move; at 0 the mouth alone."
GALLERY = 12  # videos shown


class Page:
    """The handlers of the page, each for one session."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def presets(self, kind: str, seconds: float | None) -> Any:
        """The presets with what they take on this machine."""
        labels = []
        for preset in PRESETS:
            takes = None if seconds is None else estimate(self.service.jobs, preset, kind, seconds)
            labels.append((preset if takes is None else f"{preset}, about {show.duration(takes)}", preset))
        note = "How long it takes is known once there is a voice."
        if seconds is not None:
            note = "As measured on this machine." if takes is not None else "Not tried on this machine yet."
        return gr.update(choices=labels, info=note)

    def heard(self, voice: Any, video: Any, request: gr.Request) -> Any:
        """The estimates for a voice that was just given."""
        kind = "picture" if not video else "video"
        try:
            return self.presets(kind, voice_seconds(self._path(voice, request)) if voice else None)
        except Refused:
            return self.presets(kind, None)

    async def look(self, picture: Any, video: Any, voice: Any, face: str, request: gr.Request) -> str:
        """What was found in the picture or video."""
        given = picture or (video or {}).get("video", video)
        if not given:
            return "<p>Give a picture or a video first.</p>"
        try:
            path = self._path(given, request)
            seconds = voice_seconds(self._path(voice, request)) if voice else 10.0
            about = await anyio.to_thread.run_sync(self.service.look, path, seconds, face)
        except Refused as error:
            return f'<p class="failed">{show.escape(str(error))}</p>'
        shown = path if path.stem == "picture" else path.with_name("frame.png")
        return show.found(about, gradio_files.as_file_data(str(shown))["url"])

    async def example(self, name: str, request: gr.Request) -> Any:
        """A file of the examples as if the visitor had sent it."""
        path = await anyio.to_thread.run_sync(self.service.example, owner_of(request), bundled(f"examples/{name}"))
        return gradio_files.as_file_data(str(path))

    async def make(self, request: gr.Request, *values: Any) -> AsyncIterator[tuple[str, Any, Any]]:
        """Submit; then what is shown of the job, the button that cancels it, and the clock that asks after it."""
        yield "<p><strong>Sending…</strong></p>", gr.skip(), gr.skip()
        try:
            job = await anyio.to_thread.run_sync(self._submit, dict(zip(FIELDS, values, strict=True)), request)
        except Refused as error:
            yield f'<p class="failed">{show.escape(str(error))}</p>', gr.skip(), gr.skip()
            return
        yield show.progress(self.service.jobs.status(job)), gr.update(visible=True), gr.Timer(active=True)

    def _submit(self, values: dict[str, Any], request: gr.Request) -> Job:
        owner = owner_of(request)
        values = {name: "" if value is None else value for name, value in values.items()}
        text, speaker = values.pop("text"), values.pop("speaker")
        files = [self._path(values.pop(name), request) for name in ("picture", "video", "voice") if values.get(name)]
        for name in ("picture", "video", "voice"):
            values.pop(name, None)
        consent, mood = values.pop("consent"), values.pop("mood")
        values["steps"] = values["steps"] or ""  # Gradio has no empty number
        if mood != EXPRESSIONS[0]:
            values["prompt"] = f"{values['prompt'].strip()} The person speaks with a {mood} expression.".strip()
            values["expression"] = max(2.0, float(values["expression"] or 1))
        try:
            asked = Request(**{name: value for name, value in values.items() if value != ""})
        except ValidationError as error:
            first = error.errors()[0]
            raise Refused(f"{first['loc'][0]}: {first['msg']}.") from None
        if text.strip() and not any(file.stem == "voice" for file in files):
            files.append(self.service.speech(owner, text, speaker).path)
        return self.service.submit(owner, asked, files, consent)

    def refresh(self, shown: str, request: gr.Request) -> list[Any]:
        """What is new since ``shown``: progress, cancel, result, gallery, the clock, and what is shown now."""
        jobs = self.service.jobs
        all_jobs = [(job, jobs.status(job)) for job in jobs.owned(owner_of(request))[:50]]
        done = [(job, status) for job, status in all_jobs if status.state == "finished"]
        current = latest(all_jobs)
        busy = current is not None and current[1].state in ("waiting", "running")
        now = "" if current is None else f"{current[0].id} {current[1].state} {len(done)}"
        progress = show.progress(current[1]) if current else ""
        if now == shown:
            return [progress if busy else gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.Timer(active=busy), now]
        result = gr.skip()
        if current is not None:
            result = show.result(*current) if current[1].state == "finished" else ""
        return [progress, gr.update(visible=busy), result, show.gallery(done[:GALLERY]), gr.Timer(active=busy), now]

    def cancel(self, request: gr.Request) -> Any:
        jobs = self.service.jobs
        current = latest([(job, jobs.status(job)) for job in jobs.owned(owner_of(request))[:50]])
        if current is None or current[1].state not in ("waiting", "running"):
            return gr.skip()
        jobs.cancel(current[0].id)
        return "<p><strong>Cancelling…</strong></p>"

    def _path(self, given: Any, request: gr.Request) -> Path:
        """The checked file of what a component sends. Raises Refused."""
        given = given.get("video", given) if isinstance(given, dict) else {}
        return self.service.uploads.owned(owner_of(request), str(given.get("path", "")))


FIELDS = ["picture", "video", "voice", "text", "speaker", "consent", "prompt", "preset", "motion", "expression", "mood"]
FIELDS += ["seed", "steps", "face", "extend", "negative_prompt"]


def owner_of(request: gr.Request) -> str:
    assert request.request is not None
    return request.request.state.owner


def latest(jobs: list[tuple[Job, Status]]) -> tuple[Job, Status] | None:
    """The job that a visitor follows: the oldest unfinished one, else the newest."""
    unfinished = [each for each in jobs if each[1].state in ("waiting", "running")]
    return unfinished[-1] if unfinished else next(iter(jobs), None)


def build(service: Service) -> gr.Blocks:
    page = Page(service)
    with gr.Blocks(title="SkyReels-Audio", analytics_enabled=False) as blocks:
        gr.HTML(f"<h1>Make a picture talk</h1><p>{ABOUT}</p>", padding=False)
        with gr.Tabs():
            with gr.Tab("Make a video"):
                _make_tab(page, blocks)
            with gr.Tab("Live"):
                options = "".join(f"<option>{show.escape(name)}</option>" for name in speakers())
                gr.HTML((ASSETS / "live.html").read_text().replace("SPEAKERS", options), elem_id="live-tab")
    return blocks


def _make_tab(page: Page, blocks: gr.Blocks) -> None:
    fields: dict[str, Any] = {}
    with gr.Row():
        with gr.Column():
            _who(fields)
            _voice(fields)
            gr.HTML("<h2>3. Make it</h2>", padding=False)
            fields["consent"] = gr.Checkbox(label=CONSENT, elem_id="consent")
            fields["preset"] = gr.Radio(list(PRESETS), value="good", label="Speed and size", elem_id="preset")
            _dials(fields)
            make = gr.Button(MAKE, variant="primary", elem_id="make")
        with gr.Column(elem_id="outcome"):
            found = gr.HTML(elem_id="found", label="The face")
            progress = gr.HTML(elem_id="progress", html_template='<div role="status" aria-live="polite">${value}</div>')
            cancel = gr.Button("Cancel", visible=False, variant="stop", elem_id="cancel")
            result = gr.HTML(elem_id="result")
            gr.HTML("<h2>Your videos</h2>", padding=False)
            gallery = gr.HTML(elem_id="gallery")
    clock, shown = gr.Timer(1.0, active=False), gr.State("not yet")
    raw: dict[str, Any] = {"preprocess": False, "postprocess": False, "show_progress": "hidden"}
    sights = [fields["picture"], fields["video"], fields["voice"], fields["face"]]
    for change in (fields["picture"].upload, fields["video"].upload, fields["look"].click):
        change(page.look, sights, found, preprocess=False, concurrency_limit=2)
    for gone in (fields["picture"].clear, fields["video"].clear):
        gone(lambda: "", None, found)
    sounds = [fields["voice"], fields["video"]]
    fields["voice"].change(page.heard, sounds, fields["preset"], preprocess=False, show_progress="hidden")
    for name, target in (("portrait.jpg", "picture"), ("voice.wav", "voice")):
        fields[f"example {target}"].click(_bound(page.example, name), None, fields[target], **raw)
    asked, hidden = [fields[name] for name in FIELDS], "hidden"
    make.click(page.make, asked, [progress, cancel, clock], preprocess=False, show_progress=hidden)
    cancel.click(page.cancel, None, progress, show_progress="hidden")
    outputs = [progress, cancel, result, gallery, clock, shown]
    gr.on([clock.tick], page.refresh, shown, outputs, show_progress="hidden", concurrency_limit=4)
    blocks.load(page.refresh, shown, outputs, show_progress="hidden")


def _bound(handler: Any, name: str) -> Any:
    async def bound(request: gr.Request) -> Any:
        return await handler(name, request)

    return bound


def _who(fields: dict[str, Any]) -> None:
    gr.HTML("<h2>1. Who speaks</h2>", padding=False)
    with gr.Tabs():
        with gr.Tab("Picture"):
            fields["picture"] = gr.Image(
                type="filepath",
                label="Portrait",
                sources=["upload", "clipboard", "webcam"],
                height=260,
                elem_id="picture",
            )
            fields["example picture"] = gr.Button("Use the example portrait", size="sm")
        with gr.Tab("Video"):
            fields["video"] = gr.Video(label="Video whose speaker gets the voice", height=260, elem_id="video")
    fields["look"] = gr.Button(LOOK, size="sm")
    fields["prompt"] = gr.Textbox(
        label=WORDS, placeholder="In what mood, where. Alone, without a picture, the words make the person.", lines=2
    )


def _voice(fields: dict[str, Any]) -> None:
    gr.HTML("<h2>2. What they say</h2>", padding=False)
    with gr.Tabs():
        with gr.Tab("Record or drop"):
            fields["voice"] = gr.Audio(
                type="filepath", label="Voice", sources=["upload", "microphone"], elem_id="voice"
            )
            fields["example voice"] = gr.Button("Use the example voice", size="sm")
        with gr.Tab("Type"):
            fields["text"] = gr.Textbox(label="Text to speak", lines=3, max_length=MOST_CHARACTERS)
            fields["speaker"] = gr.Dropdown(list(speakers()), label="Speaker", value=next(iter(speakers()), None))


def _dials(fields: dict[str, Any]) -> None:
    fields["motion"] = gr.Slider(0, 1, 1, step=0.1, label="Motion", info=MOTION)
    fields["mood"] = gr.Dropdown(EXPRESSIONS, value=EXPRESSIONS[0], label="Expression")
    with gr.Accordion("Advanced", open=False):
        fields["expression"] = gr.Slider(1, 10, 1, step=0.5, label="Guidance by the words", info="1 is off.")
        fields["negative_prompt"] = gr.Textbox(label="What to stay away from")
        fields["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, info="The same seed, the same video.")
        fields["steps"] = gr.Number(
            0, label="Denoising steps", precision=0, minimum=0, maximum=100, info="0: as many as the preset has."
        )
        fields["face"] = gr.Dropdown(
            ["largest", "left", "right", "0", "1", "2"], value="largest", label="Face of a video"
        )
        fields["extend"] = gr.Dropdown(
            ["ping-pong", "hold", "trim"], value="ping-pong", label="A video shorter than the voice"
        )


def theme() -> Default:
    """Gradio's own, its greys and its buttons dark enough to read (WCAG AA), its fonts the visitor's."""
    grey: dict[str, Any] = {"primary_hue": "blue", "secondary_hue": "blue", "neutral_hue": "slate"}
    names = ("body_text_color_subdued", "block_info_text_color", "block_label_text_color", "block_title_text_color")
    readable: dict[str, Any] = {name: "*neutral_600" for name in names} | {
        f"{name}_dark": "*neutral_300" for name in names
    }
    readable |= {"input_placeholder_color": "*neutral_500", "input_placeholder_color_dark": "*neutral_400"}
    for suffix in ("", "_dark"):
        readable[f"button_primary_background_fill{suffix}"] = "*primary_700"
        readable[f"button_primary_background_fill_hover{suffix}"] = "*primary_800"
        readable[f"button_primary_text_color{suffix}"] = "white"
        readable[f"button_cancel_background_fill{suffix}"] = "#b91c1c"
        readable[f"button_cancel_background_fill_hover{suffix}"] = "#991b1b"
        readable[f"button_cancel_text_color{suffix}"] = "white"
    return Default(**grey, font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(**readable)  # pyright: ignore


def mount(app: FastAPI, service: Service) -> FastAPI:
    """The page at the root of the application, its files by our own ways."""
    os.environ["GRADIO_TEMP_DIR"] = str(service.uploads.root)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    app.include_router(gradio_files.router)
    return gr.mount_gradio_app(
        app,
        build(service),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        allowed_paths=[str(service.uploads.root)],
        theme=theme(),
        css_paths=ASSETS / "page.css",
        head=f"<script>{(ASSETS / 'live.js').read_text()}</script>",
    )
