"""JSON of requests into the wire contract's models, with the project's own errors."""

from __future__ import annotations

from typing import TypeVar

import pydantic

from deployments.errors import ValidationError

Model = TypeVar("Model", bound=pydantic.BaseModel)


def parse_json(model: type[Model], text: str | bytes, where: str) -> Model:
    """The model that a JSON text holds.

    Args:
        model: of the wire contract.
        text: JSON; empty is an empty object.
        where: what the text is of, for errors.

    Raises:
        ValidationError: it is no JSON, or not of this model; names the first field.
    """
    try:
        return model.model_validate_json(text or "{}")
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValidationError(
            first["msg"],
            where=f"{where}: {field[:200]}" if field else where,
            got=shown(first["input"]),
        ) from error


def shown(value: object) -> str:
    """What was sent, short enough for a message."""
    try:
        return repr(value)[:200]
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
