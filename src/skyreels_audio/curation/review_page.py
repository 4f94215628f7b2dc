"""The page on which people check samples: the keyboard is enough, and every answer is on disk before the next clip."""

from __future__ import annotations

import mimetypes
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from skyreels_audio.curation.audit import Answer, Answers, audit, now, passed, sample
from skyreels_audio.curation.recipe import Recipe, Stages
from skyreels_audio.curation.select import Verdict
from skyreels_audio.media import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI


class Given(BaseModel):
    """What a reviewer's page sends."""

    stage: str
    clip: str
    reviewer: str
    bad: bool
    why: str | None = None


def review_app(verdicts: list[Verdict], recipe: Recipe, out: Path) -> FastAPI:
    """The page and its three requests: the next clip and how its stage stands, a clip's video, an answer."""
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse, HTMLResponse

    app, answers = FastAPI(title="Curation review"), Answers(out)
    clips = {each.clip.id: each.clip for each in verdicts}
    let_through = {stage: passed(verdicts, stage) for stage in Stages.model_fields}

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return (files("skyreels_audio.curation") / "assets" / "review.html").read_text()

    @app.get("/next")
    def following(stage: str, reviewer: str) -> dict[str, Any]:
        if stage not in let_through:
            raise HTTPException(404, f"There is no stage {stage!r}.")
        every = answers.all()
        stands = {name: asdict(audit(name, every, recipe)) for name in let_through}
        clip = sample(let_through[stage], stage, reviewer, every)
        shown = None
        if clip is not None:
            shown = {
                "id": clip.id,
                "start": clip.start,
                "end": clip.end,
                "caption": clip.caption,
                "source": clip.source,
            }
        return {"clip": shown, "stages": stands, "limit": recipe.review.bad_rate}

    @app.get("/video/{clip_id}")
    def video(clip_id: str) -> FileResponse:
        clip = clips.get(clip_id)
        if clip is None or "://" in clip.source:
            raise HTTPException(404, "Only clips of local files can be played.")
        return FileResponse(clip.source, media_type=mimetypes.guess_type(clip.source)[0] or "video/mp4")

    @app.post("/answer")
    def answer(given: Given) -> dict[str, bool]:
        if given.clip not in clips or given.stage not in let_through:
            raise HTTPException(404, "There is no such clip or stage.")
        try:
            answers.add(Answer(**given.model_dump(), time=now()))
        except InputError as error:
            raise HTTPException(422, str(error)) from None
        return {"written": True}

    return app
