"""Errors of the endpoint, in the format of OpenAI's API: {"error": {"message", "type", "param", "code"}}.

Used by: serve.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ApiError(Exception):
    """What a client reads in place of an answer.

    Attributes:
        status: of HTTP.
        param: the field of the request that is wrong.
        code: a word for programs.
        headers: further headers of the answer.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def too_large(limit: int) -> ApiError:
    """413 for a body."""
    return ApiError(413, f"the body is larger than the limit of {limit} bytes (--max-body)", code="body_too_large")


def late_body() -> ApiError:
    """408: a body that does not come."""
    message = "the body was not complete in time; send it at once"
    return ApiError(408, message, code="body_timeout", headers={"x-should-retry": "false"})


def too_many() -> ApiError:
    """429: the queue is full."""
    message = "too many requests are waiting (--max-queue); try again"
    return ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})


def too_slow(seconds: float) -> ApiError:
    """504: the answer was not complete in time. A retry would take as long."""
    message = f"the answer was not complete after {seconds:g} seconds (--timeout); ask for fewer tokens"
    return ApiError(504, message, code="timeout", headers={"x-should-retry": "false"})


def failed() -> ApiError:
    """500: the model failed; the log says why."""
    return ApiError(500, "the model failed on this request; the log of the server says why", code="model_failed")


def unknown_model(known: str) -> ApiError:
    """404 for a name of a model that is not served."""
    message = f"no such model; this server has one model, {known}; GET /v1/models shows it"
    return ApiError(404, message, "model", "model_not_found")
