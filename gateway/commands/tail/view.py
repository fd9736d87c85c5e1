"""A run as it happens, for people."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from rich.console import Console
from rich.text import Text

from gateway.client import Event, Gap, Reset, Snapshot, StreamItem
from gateway.commands.tail.lines import describe, introduce
from gateway.commands.tail.text import compact, printable

NAMES_KEPT = 10_000


class View:
    """Prints stream items: one line each, while the pieces of a message flow into one paragraph."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._message: object | None = None
        self._names: OrderedDict[str, str] = OrderedDict()

    def show(self, item: StreamItem) -> None:
        """Print one item of a stream."""
        match item:
            case Event(type="message.delta"):
                self._flow(item)
            case Event(type="message.completed") if self._message is not None:
                self.close()
            case Event():
                self._remember(item)
                self._line(item.created_at, _message(item) or describe(item, self._names))
            case Gap():
                self._notice(f"the events before {item.first_seq} are no longer in the log")
            case Reset():
                self._notice(f"the log was rolled back: what came after event {item.valid_through or 0} is void")
            case Snapshot():
                self._notice(f"state as of event {item.as_of_seq}: {compact(item.state, limit_chars=2000)}")

    def close(self) -> None:
        """End the paragraph that is under way, if one is."""
        if self._message is not None:
            self._message = None
            self._print(Text())

    def _flow(self, event: Event) -> None:
        message = event.data.get("message_id") or "message"
        if message != self._message:
            self.close()
            self._message = message
            self._print(_clock(event.created_at), end="")
        self._print(Text(printable(str(event.data.get("content", "")))), end="")

    def _line(self, created_at: str, text: Text) -> None:
        self.close()
        self._print(Text.assemble(_clock(created_at), text))

    def _notice(self, sentence: str) -> None:
        self.close()
        self._print(Text(f"-- {sentence}", style="yellow"))

    def _print(self, text: Text, *, end: str = "\n") -> None:
        if self._console.is_terminal:
            self._console.print(text, end=end, soft_wrap=True, highlight=False)
        else:
            # Past rich, which takes ten times as long to arrive at the same plain text.
            self._console.file.write(text.plain + end)
        self._console.file.flush()

    def _remember(self, event: Event) -> None:
        introduced = introduce(event)
        if introduced is not None:
            self._names[introduced[0]] = introduced[1]
            if len(self._names) > NAMES_KEPT:
                self._names.popitem(last=False)


def _message(event: Event) -> Text | None:
    if event.type != "message.completed":
        return None
    return Text(printable(str(event.data.get("content", ""))))


def _clock(created_at: str) -> Text:
    try:
        clock = datetime.fromisoformat(created_at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        clock = "--:--:--"
    return Text(f"{clock}  ", style="dim")
