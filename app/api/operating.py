"""Routes for those who run the sidecar: is it alive, is it ready, what does it count, what is it made of."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import cast

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.metrics import Metrics
from app.api.problems import documented
from app.api.recommending import ServiceOf, json_response
from app.api.schemas import Health, Readiness, Version

API_VERSION = "1"
_LIBRARIES = (
    "fastapi",
    "neo4j",
    "numpy",
    "pydantic",
    "pymilvus",
    "pymongo",
    "redis",
    "sentence-transformers",
    "sqlalchemy",
    "starlette",
    "torch",
    "uvicorn",
)

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="The process lives", response_model=Health, responses=documented(421))
async def healthz() -> Response:
    """Answers at once and asks no store."""
    return json_response(b'{"status":"ok"}')


@router.get("/readyz", summary="Recommendations can be given", response_model=Readiness, responses=documented(421, 503))
async def readyz(service: ServiceOf) -> Response:
    """200 where something is published and every store answers; else a problem that names the stores that do not."""
    return json_response((await service.readiness()).model_dump_json().encode())


@router.get(
    "/metrics",
    summary="Counts for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **documented(421)},
)
async def metrics(request: Request) -> Response:
    """Requests by route template and status, durations, cache results, degraded answers. No ids."""
    return Response(cast(Metrics, request.app.state.metrics).text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", summary="What this is made of", response_model=Version, responses=documented(421))
async def version_(service: ServiceOf) -> Response:
    """Versions of the package, this API, the model, the generation and the libraries."""
    generation, model = await service.generation()
    found = Version(
        version=package_version(),
        api=API_VERSION,
        model=model,
        generation=generation,
        libraries={name: version(name) for name in _LIBRARIES},
    )
    return json_response(found.model_dump_json().encode())


def package_version() -> str:
    """Return the version of likeminded, `unknown` in a checkout that was never installed."""
    try:
        return version("likeminded")
    except PackageNotFoundError:
        return "unknown"
