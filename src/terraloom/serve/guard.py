"""The outermost layer: counts and logs every request, and lets no error out but as one sentence."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terraloom.serve.metrics import Metrics

log = logging.getLogger("terraloom.serve")

KINDS = frozenset(
    "tiles WebMercatorQuad preview bbox feature statistics point cog.tif generate info info.geojson spec "
    "places.json healthz metrics leaflet page WMTSCapabilities.xml".split()
)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Stand before `app`."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and say how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, size = time.perf_counter(), 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            log.exception("a request failed", extra={"facts": {"path": scope["path"]}})
            if status == 0:
                text = "something went wrong on the server; its log says what"
                await JSONResponse({"detail": text}, 500)(scope, receive, watched)
        finally:
            self._note(scope, status, size, time.perf_counter() - start)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        first = scope["path"].split("/")[1]
        what = first if first in KINDS else ("page" if first == "" else "other")
        method = (
            scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        )
        self._metrics.requests.labels(what, method, str(status)).inc()
        self._metrics.seconds.labels(what).observe(seconds)
        facts = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode("latin-1"),
            "status": status,  # 0: the client went away
            "ms": round(1000 * seconds, 1),
            "bytes": size,
            "client": (scope.get("client") or ("", 0))[0],
        }
        log.info("request", extra={"facts": facts})


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its facts."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
