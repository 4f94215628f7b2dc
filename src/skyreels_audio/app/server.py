"""The server: page, API and live in one ASGI application, and the command's way to run it."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from skyreels_audio import __version__
from skyreels_audio.app import api, live_socket
from skyreels_audio.app.access import Access
from skyreels_audio.app.options import Options
from skyreels_audio.app.sandbox import Refused
from skyreels_audio.app.service import Service
from skyreels_audio.media import InputError


def create(options: Options) -> FastAPI:
    """The application; its workers start and end with it."""
    service = Service(options)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="SkyReels-Audio",
        description="Talking videos from a picture, a video or words, and a voice.",
        version=__version__,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(api.router)
    app.include_router(live_socket.router)

    @app.exception_handler(Refused)
    @app.exception_handler(InputError)
    async def refused(request: HttpRequest, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    if options.page:
        from skyreels_audio.app import page  # Gradio takes seconds to import
        from skyreels_audio.app.gradio_files import Guard

        page.mount(app, service)
        app.add_middleware(Guard, service=service)
    app.add_middleware(Access, options=options)
    return app


def serve(options: Options) -> None:
    """Listen until interrupted."""
    import uvicorn

    how = {"log_level": "warning", "timeout_graceful_shutdown": 2, "ws_ping_timeout": 120.0}  # of slow visitors
    config = uvicorn.Config(create(options), host=options.host, port=options.port, **how)
    uvicorn.Server(config).run()
