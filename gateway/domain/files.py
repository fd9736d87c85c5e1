"""Files: what is known of one, what it may be called, and who reaches it."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import msgspec

from gateway.domain.access import Grant, reaches
from gateway.domain.run import Actor
from gateway.errors import InvalidBody, NotFound

NAME_CHARS: Final = 255
CONTENT_TYPE_CHARS: Final = 255
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
RUN_FILES: Final = 64
TOLD_CHARS: Final = 64

_FILE_ID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)
# Controls, line and paragraph separators, and halves of characters: none of them can be part of a file's name.
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Zl", "Zp", "Cs"})
# They turn the direction of what follows, so that "exe.pdf" may be shown where "fdp.exe" is meant.
_UNFIT_CHARS: Final = frozenset("/\\\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
# RFC 9110, section 8.3.1.
_CONTENT_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))*")


class FileRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file as the store knows it; `created_ms` is Unix time, `sha256` in hex.

    An output of a run has the run's id, agent and thread; an uploaded file has none of them.
    `blob` is where its bytes are; `shared` says that more than one request answered for it.
    """

    file_id: str
    tenant: str
    name: str
    size_bytes: int
    content_type: str
    sha256: str
    created_ms: int
    created_by: Actor
    blob: str
    run_id: str | None = None
    agent_id: str | None = None
    thread_id: str | None = None
    shared: bool = False


def parse_file_id(text: str) -> str:
    """Return a file's id in its one spelling.

    Raises:
        NotFound: no file can have this id.
    """
    if not _FILE_ID.fullmatch(text):
        raise unknown_file(text[:TOLD_CHARS])
    return text.upper()


def check_name(name: str | None) -> str:
    """Return a file's name as given.

    Raises:
        InvalidBody: there is none, or one that no file should be saved under.
    """
    if name is None:
        raise InvalidBody("A file needs a name: ?name=, or a filename in Content-Disposition.", parameter="name")
    if not 0 < len(name) <= NAME_CHARS:
        raise InvalidBody(f"A file's name has 1 to {NAME_CHARS} characters, not {len(name)}.", parameter="name")
    unfit = next((c for c in name if c in _UNFIT_CHARS or unicodedata.category(c) in _UNFIT_CATEGORIES), None)
    if unfit is not None:
        detail = f"A file's name has no slash and no control character, such as U+{ord(unfit):04X}."
        raise InvalidBody(detail, parameter="name")
    if name in (".", ".."):
        raise InvalidBody(f"{name!r} names a directory.", parameter="name")
    return name


def check_content_type(text: str | None) -> str:
    """Return a content type, `application/octet-stream` where none was given.

    Raises:
        InvalidBody: not a media type of RFC 9110, or too long.
    """
    if text is None or not (given := text.strip(" \t")):
        return DEFAULT_CONTENT_TYPE
    if len(given) > CONTENT_TYPE_CHARS or not _CONTENT_TYPE.fullmatch(given):
        detail = f"Content-Type: {given[:TOLD_CHARS]!r} is no media type of at most {CONTENT_TYPE_CHARS} characters."
        raise InvalidBody(detail, parameter="Content-Type")
    return given


def unknown_file(file_id: str) -> NotFound:
    """Return the one refusal for a file that is not there, or not there for this caller."""
    return NotFound(f"There is no file {file_id}.", file_id=file_id)


def reaches_file(grant: Grant, record: FileRecord) -> bool:
    """Return whether a caller that names a file may have it: an output like its run, any other in its tenant.

    Whoever executes a run for some agents must have the run's input files, whoever uploaded them.
    """
    if record.tenant != grant.tenant:
        return False
    if record.run_id is not None and record.agent_id is not None:
        return reaches(grant, record.run_id, record.thread_id, record.agent_id)
    return grant.runs is None and grant.thread_id is None


def manages_file(grant: Grant, record: FileRecord) -> bool:
    """Return whether a caller may find a file in lists, and delete it.

    A grant for some agents manages of the uploaded files only its own: none of them names an agent.
    """
    if not reaches_file(grant, record):
        return False
    return record.run_id is not None or grant.agents is None or record.created_by.id == grant.principal.id


def require_file(grant: Grant, record: FileRecord | None, file_id: str) -> FileRecord:
    """Return the record if the grant reaches it; told exactly as if there were no such file otherwise.

    Raises:
        NotFound: it does not.
    """
    if record is None or not reaches_file(grant, record):
        raise unknown_file(file_id)
    return record
