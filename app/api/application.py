"""The FastAPI application: routes, problems, documentation and the edge around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api import operating, recommending
from app.api.edge import Edge
from app.api.metrics import Metrics
from app.api.problems import Problem, add_handlers
from app.api.service import Service
from app.api.shortcut import Shortcut
from recs.settings import Settings

_DESCRIPTION = """
Campaign recommendations for users, with the parts of every score and, on request, the evidence behind it.

Every error is an `application/problem+json` document (RFC 9457) with a stable `code`.
"""


def create_app(settings: Settings, *, give_up: Callable[[Exception], None]) -> FastAPI:
    """Return the sidecar. `give_up` is told where the stores can never be opened; it should end the server."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(settings, metrics, give_up=give_up)
        app.state.service, app.state.metrics = service, metrics
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPIOffline(
        title="Likeminded",
        version=operating.API_VERSION,
        description=_DESCRIPTION,
        # The second documentation page would say the same.
        redoc_url=None,
        # An id may end with a slash.
        redirect_slashes=False,
        # FastAPI would hand requests, with the ids in them, to whatever OpenTelemetry finds configured.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name.strip("_"),
    )
    add_handlers(app)
    app.include_router(recommending.router)
    app.include_router(operating.router)
    # The one added last is the outermost.
    app.add_middleware(Shortcut)
    app.add_middleware(Edge, metrics=metrics)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Add the problem document to the components that the routes' descriptions refer to."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = schema.pop("$defs", {})
            describe().setdefault("components", {}).setdefault("schemas", {}).update({**parts, "Problem": schema})
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
