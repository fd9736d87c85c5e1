"""What a client wants to be answered with, where a path has more than one form."""

from __future__ import annotations

from starlette.requests import Request


def wants(request: Request, media_type: str) -> bool:
    """Whether `Accept` names `media_type` itself, with any weight but 0; whoever takes anything gets the usual form."""
    for part in ",".join(request.headers.getlist("accept")).split(","):
        name, *parameters = [text.strip().lower() for text in part.split(";")]
        if name == media_type:
            return _weigh(parameters) > 0
    return False


def _weigh(parameters: list[str]) -> float:
    """Return the `q` among parameters; 1 where there is none that can be read."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0
