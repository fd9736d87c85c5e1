"""What callers of the processes API send and get, field by field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

# The examples are those of the API's own page.
ID = "b4fznghynbdemslfd5k044fgd"
FILES = [ID, "9nvx1hdm9bd74rp585oe81t5i"]
INPUTS = [{"name": "order_id", "value": ID}]
OUTPUTS = [{"name": "total_items", "value": 42}, {"name": "customer_id", "value": FILES[1]}]

ResourceId = Annotated[str, Meta(min_length=1, max_length=26, pattern=r"^[a-zA-Z0-9-_]+\Z", examples=[ID])]
RunName = Annotated[str, Meta(min_length=1, max_length=100, examples=["Process invoice 42"])]
Stage = Literal["Draft", "Published"]
Word = Literal["Created", "Running", "WaitingForInput", "Paused", "Completed", "Failed", "Cancelled"]

LIMIT = 10
LIMIT_MOST = 100
FILES_MOST = 64
INPUTS_MOST = 1_000


class ListQuery(msgspec.Struct, frozen=True):
    """`GET /runs`: an optional parameter may be empty or `null`; any other parameter is ignored."""

    process_id: Annotated[str, Meta(min_length=1, description="The unique identifier of the process.")]
    agent_id: Annotated[str, Meta(min_length=1, description="The unique identifier of the agent.")]
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MOST, description="Maximum number of items to return.")] | None = LIMIT
    stage: Annotated[Stage | None, Meta(description="The process stage.")] = None
    continuation_token: Annotated[
        str | None, Meta(description="Where a prior response says that the next page of results begins.")
    ] = None


class Named(msgspec.Struct, frozen=True):
    """An input or an output of a process."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    value: Any


class CreateRun(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /runs`: any other member is ignored."""

    agent_id: ResourceId
    process_id: ResourceId
    name: RunName
    stage: Stage
    file_ids: Annotated[list[ResourceId], Meta(max_length=FILES_MOST, examples=[FILES])] | None = None
    inputs: Annotated[list[Named], Meta(max_length=INPUTS_MOST, examples=[INPUTS])] | None = None


class Output(msgspec.Struct, frozen=True):
    """A named result of a process."""

    name: str
    value: Any


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a process; `created_at` is UTC to the second, without an offset.

    Ids of runs are within the 26 characters of this API; a run that another API made may have an agent whose id is not.
    """

    id: Annotated[str, Meta(min_length=1, max_length=26, examples=["01JD8Q3V6S2M5N9X7K4T1W0ZYH"])]
    agent_id: Annotated[str, Meta(min_length=1, examples=[ID])]
    process_id: Annotated[str, Meta(min_length=1, examples=[FILES[1]])]
    name: RunName
    stage: Stage
    status: Word
    created_at: Annotated[str, Meta(examples=["2021-01-01T12:00:00"])]
    file_ids: Annotated[list[str], Meta(examples=[FILES])] | None
    outputs: Annotated[list[Output], Meta(examples=[OUTPUTS])] | None


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first; `continuation_token` is null at the end."""

    continuation_token: str | None
    items: list[Run]


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one parameter or member: `loc` says which."""

    type: str
    loc: list[str | int]
    msg: str


class Refusal(msgspec.Struct, frozen=True):
    """Why a request came to nothing: a sentence, or what is wrong with each parameter or member."""

    detail: str | list[Fault]
