"""Prompt files in: the text that clips are conditioned on.

Owns which field of a prompt file is used; the cleaning of the text is the text encoder's.
"""

from __future__ import annotations

from collections.abc import Sequence

from worldstereo.errors import PromptError
from worldstereo.formats.scene_files import SceneFiles, describe_json

# The first field that a file has is its prompt.
PROMPT_FIELDS = ("long caption", "prompt")
_FIELDS = " or ".join(repr(field) for field in PROMPT_FIELDS)


def read_prompt(files: SceneFiles, names: Sequence[str]) -> str:
    """Read a prompt from the first of several files that is there.

    Args:
        files: the scene folder.
        names: paths inside it, in order of preference.

    Returns:
        The text of the file's ``long caption``, else of its ``prompt``.

    Raises:
        PromptError: none of the files is there, or the one used has no such field, no text in
            it, only white space, or too much.
    """
    name = next((name for name in names if files.has_file(name)), None)
    if name is None:
        raise PromptError(
            "the prompt file is missing",
            where=names[0],
            got="no such file",
            allowed=f"{' or '.join(names)}, with a text in a field {_FIELDS}",
        )
    content = files.read_object(name, PromptError)
    field = next((field for field in PROMPT_FIELDS if field in content), None)
    if field is None:
        raise PromptError(
            "the file holds no prompt",
            where=name,
            got=f"the fields {', '.join(sorted(content))[:200] or 'none'}",
            allowed=f"a field {_FIELDS}",
        )
    text = content[field]
    where = f"{name}: {field}"
    if not isinstance(text, str):
        raise PromptError(
            "the prompt is no text", where=where, got=describe_json(text), allowed="a text"
        )
    if not text.strip():
        raise PromptError(
            "the prompt is empty",
            where=where,
            got=repr(text[:40]),
            allowed="a description of the scene",
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(
            "the prompt holds half a character",
            where=where,
            got=ascii(text)[:80],
            allowed="text that has a form in UTF-8",
        )
    if len(text) > files.limits.max_prompt_chars:
        raise PromptError(
            "the prompt is too long",
            where=where,
            got=f"{len(text)} characters",
            allowed=f"up to {files.limits.max_prompt_chars}",
        )
    return text
