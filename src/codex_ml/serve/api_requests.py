"""What a client may ask for: the bodies of /v1/completions and /v1/chat/completions, checked field by field.

A field that this server does not support is an error that names it, unless its value asks for nothing.

Used by: own_model.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codex_ml.core.bounds import MOST_TOKENS
from codex_ml.core.errors import safe_text
from codex_ml.core.strict_json import parse_json
from codex_ml.serve.api_errors import ApiError

MOST_CHOICES = 16  # per request, over all its prompts
MOST_MESSAGES = 1024
COMPLETION_TOKENS = 16  # OpenAI's default of max_tokens for completions
# Fields that some clients always send, and the values of them that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "echo": (False,),
    "best_of": (1,),
    "logit_bias": ({},),
    "store": (False,),
    "tools": ([],),
}
FORM = re.compile(r"str|constrained-str|list\[.*\]")  # how pydantic names the forms that a field may have
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class _Body(BaseModel):
    """Unknown fields and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StreamOptions(_Body):
    """`stream_options`."""

    include_usage: bool = Field(False, description="A last chunk with the numbers of tokens")


class AskedText(_Body):
    """What both kinds of requests share."""

    model: str | None = Field(None, description="Id of the model, as /v1/models shows it; absent: the one there is")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="Of the random numbers; absent: drawn")
    temperature: float = Field(1.0, ge=0, le=2, description="0: the most probable token")
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=MOST_CHOICES, description="Answers per prompt")
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] = Field([], description="Texts that end an answer")
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS, description="Largest number of new tokens")
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = Field(None, description="A label that clients send; it changes nothing and is not kept")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class CompletionRequest(AskedText):
    """Body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MOST_CHOICES)]
    logprobs: int | None = Field(None, ge=0, le=5, description="Most probable tokens that are listed per token")

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TextPart(_Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(AskedText):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS, description="The same as max_tokens")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Most probable tokens that are listed per token")


Body = TypeVar("Body", bound=AskedText)


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        ApiError: 400 for what is not strict JSON in UTF-8, or not an object.
    """
    try:
        data.decode("utf-8")
        value = parse_json(data)
    except RecursionError:
        raise ApiError(400, "the body is not valid JSON: nested too deeply", code="invalid_json") from None
    except ValueError as error:  # bytes that are not UTF-8 too; numbers of too many digits
        raise ApiError(400, f"the body is not valid JSON: {_short(str(error))}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return value


def parse_request(kind: type[Body], data: bytes) -> Body:
    """The request in a body. A field that is null counts as absent.

    Raises:
        ApiError: 400, naming the first wrong field.
    """
    given = {key: value for key, value in parse_object(data).items() if value is not None}
    fields = kind.model_fields
    given = {key: value for key, value in given.items() if key in fields or value not in NEUTRAL.get(key, ())}
    if unknown := next((key for key in given if key not in fields), None):
        known = ", ".join(sorted(fields))
        raise ApiError(400, f"{_short(unknown)} is not supported; allowed: {known}", _short(unknown), "unsupported")
    try:
        request = kind.model_validate(given)
    except ValidationError as error:
        where, what = map(_short, _first_wrong(error))
        raise ApiError(400, f"{where}: {what}", where, "invalid_value") from None
    _refuse_surrogates(given)
    return request


def _first_wrong(error: ValidationError) -> tuple[str, str]:
    """(place, what is wrong there) of the first wrong field, for each form that it may have."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [tuple(part for part in one["loc"] if not FORM.fullmatch(str(part))) for one in found]
    deepest = max((place for place in places if place[:1] == places[0][:1]), key=len)
    said = dict.fromkeys(one["msg"] for one, place in zip(found, places, strict=True) if place == deepest)
    return ".".join(map(str, deepest)), ", or: ".join(said)


def _refuse_surrogates(given: dict[str, Any]) -> None:
    """Half a character of UTF-16, such as the escape \\ud800, is not text."""
    for key, value in given.items():
        try:
            str(value).encode("utf-8")
        except UnicodeEncodeError:
            raise ApiError(400, f"{key} holds half a character (a lone surrogate)", key, "invalid_value") from None


def _short(text: str) -> str:
    return safe_text(text)[:200]
