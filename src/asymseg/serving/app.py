"""The application: what each address answers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from asymseg import __version__
from asymseg.serving.describing import describe, readiness
from asymseg.serving.examples import Examples
from asymseg.serving.refusals import Refusal
from asymseg.serving.schemas import Example, Live, ModelDescription, PixelAnswer, Prediction, Ready, Refused
from asymseg.serving.service import Service

PAGE = Path(__file__).parent / "page"

_PAGE_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_WHY = {
    400: "Not an image, or a body that cannot be read.",
    401: "No key, or none that is known.",
    403: "Asked by another site's page, or of another server.",
    404: "Not there.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pixels or numbers, or no memory for them.",
    422: "A parameter that is unknown or out of range.",
    500: "A mistake of ours; it stands in the server's log.",
    503: "Too much to do, or about to stop; try again after Retry-After seconds.",
    504: "The answer took too long.",
}
_PREDICTION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "As `output` asks: JSON, the mask as a palette PNG of class ids, the overlay as a JPEG, or "
        "`probabilities` (float16, classes x height x width) and `classes` in an .npz file.",
        "content": {"image/png": {}, "image/jpeg": {}, "application/octet-stream": {}},
    }
}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": _FILE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "string", "format": "binary"}},
                "required": ["image"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "string", "format": "byte", "description": "The file in base64."}},
                "required": ["image"],
                "additionalProperties": False,
            }
        },
    },
}


def make_app(service: Service, examples: Examples) -> FastAPI:
    """All addresses, the page among them; who may ask is for `Guard` to say."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in (service.models.watch(), service.kept.watch())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.close()

    app = FastAPI(
        title="asymseg",
        version=__version__,
        description="Semantic segmentation: an image in, the class of each of its pixels out.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # they would load from elsewhere
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=running,
    )
    _add_page(app)
    _add_predictions(app, service)
    _add_models(app, service)
    _add_examples(app, examples)
    _add_health(app, service)
    _add_errors(app)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    app.post(
        "/v1/predict",
        summary="Predict an image",
        response_model=Prediction,
        responses=_PREDICTION | _refused(400, 401, 403, 404, 408, 413, 422, 500, 503, 504),
        openapi_extra={"requestBody": _BODY},
    )(service.predict)
    app.get(
        "/v1/predictions/{name}/pixel",
        summary="Ask about a pixel",
        response_model=PixelAnswer,
        responses=_refused(401, 403, 404, 413, 422, 500, 503, 504),
    )(service.pixel)


def _add_models(app: FastAPI, service: Service) -> None:
    refused = _refused(401, 403, 404, 422, 500)

    @app.get("/v1/models", summary="List the models", response_model=list[ModelDescription], responses=refused)
    def models() -> list[dict[str, Any]]:
        return [describe(service.models, name) for name in service.models.workers]

    @app.get("/v1/models/{name}", summary="Describe a model", response_model=ModelDescription, responses=refused)
    def model(name: str) -> dict[str, Any]:
        service.models.pick(name)
        return describe(service.models, name)


def _add_examples(app: FastAPI, examples: Examples) -> None:
    refused = _refused(401, 403, 404, 422, 500)

    @app.get("/examples", summary="List pictures to try", response_model=list[Example], responses=refused)
    def names() -> list[dict[str, str]]:
        return [{"name": name, "url": f"/examples/{quote(name)}"} for name in examples.names]

    @app.get(
        "/examples/{name}",
        summary="A picture to try",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}, **refused},
    )
    def example(name: str) -> Response:
        content, kind = examples.read(name)
        return Response(content, media_type=kind)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/livez", summary="Whether the server runs", response_model=Live, responses=_refused(403, 500))
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/readyz", summary="Whether it takes requests", response_model=Ready, responses=_refused(403, 500, 503))
    async def ready() -> dict[str, Any]:
        if service.room.stopping:
            raise Refusal(503, "stopping", "the server is about to stop; try again soon", retry_after=1)
        return readiness(service.models)

    @app.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_refused(401, 403, 500)},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return _page_file("index.html")

    @app.get("/page/{name:path}", include_in_schema=False)
    def page_file(name: str) -> Response:
        return _page_file(name)


def _page_file(name: str) -> Response:
    """A file of the page, chosen from those that there are."""
    files = {path.relative_to(PAGE).as_posix(): path for path in PAGE.rglob("*") if path.suffix in _PAGE_KINDS}
    if name not in files:
        raise Refusal(404, "not_found", "the page has no such file")
    return Response(files[name].read_bytes(), media_type=_PAGE_KINDS[files[name].suffix])


def _add_errors(app: FastAPI) -> None:
    """Every fault in one form: a code for programs, and one line for people."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return _answer(refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"][1:])
        return _answer(Refusal(422, "bad_parameter", f"{where}: {first['msg']}; /openapi.json lists what there is"))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "wrong_method"}
        refusal = Refusal(
            error.status_code,
            codes.get(error.status_code, "refused"),
            f"{error.detail}; /openapi.json lists what there is",
        )
        response = _answer(refusal)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        logging.getLogger("asymseg").error("%s %s", request.method, request.url.path)  # what follows is the traceback
        return _answer(Refusal(500, "internal", "a mistake of the server's, told in its log; please report it"))


def _answer(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Refused, "description": _WHY[status]} for status in statuses}
