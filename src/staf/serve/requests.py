"""Requests as OpenAI's clients send them, and errors as they read them.

A parameter that would change an answer and is not carried out is refused, never passed over: texts are written greedily.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from staf.data.read_report import HALF_CHARACTER


def _encodable(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(HALF_CHARACTER)
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Token = Annotated[int, Field(ge=0, le=2**31)]
Stop = Annotated[Text, Field(min_length=1, max_length=64)]
Row = str | dict[str, Any]
MOST_STOPS = 8


class Body(BaseModel):
    """What every request has."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)
    model: str
    """name of a router, or of the base"""


class Classify(Body):
    """Texts for a router of labels."""

    input: Row | list[Row]
    """a text, a row with the columns of the task's table, or a list of them"""
    threshold: float | None = Field(None, ge=0, le=1)
    """probability below which nothing is answered"""


class StreamOptions(BaseModel):
    """Of a stream."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class Written(Body):
    """What requests for texts have in common."""

    max_tokens: int | None = Field(None, ge=0, le=1 << 20)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=0)] | None = None
    """0: texts are written greedily"""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """changes nothing where the likeliest token is taken"""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """changes nothing: nothing is drawn"""
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    user: str | None = None
    """neither kept nor logged"""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end the text."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Completion(Written):
    """A prompt to continue as it is, without a task's template."""

    prompt: Text | list[Token] | list[Text] | list[list[Token]]
    echo: bool = False
    """answer the prompt too; with logprobs its tokens' log-probabilities, and at most one token after it"""
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    """with echo: 1 gives the likeliest token at each position too"""
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if self.prompt and isinstance(self.prompt[0], int) else list(self.prompt)  # type: ignore[arg-type]


class Part(BaseModel):
    """A part of a message: text."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Chat(Written):
    """A chat: with the base by its chat template; a router answers the last message, which is the user's."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)


class AddRouter(BaseModel):
    """The name of a router in the folder that the server was started with."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    name: str


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
