"""The ratings and edits of an Open WebUI, brought into the store and kept in step.

Open WebUI is asked by its HTTP API with an administrator's key: for the ratings and, chat by chat,
for the answers that people edited. Only what changed since the last time is fetched; the moment is
kept in the home. Knows Open WebUI's routes; `feedback_store.formats.openwebui` knows its records.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from engine.errors import BurnishError, InvalidInput, PeerUnavailable
from engine.storage import write_atomically
from feedback_store.formats.fields import UnusableRecord
from feedback_store.formats.importing import IMPORTED_TEMPLATE
from feedback_store.formats.openwebui import edited_messages, synced_edit, synced_rating
from feedback_store.records import SyncedTurn

if TYPE_CHECKING:
    import httpx

    from app.workspace import Workspace

_log = logging.getLogger(__name__)
PeerRow = dict[str, Any]  # a JSON object of Open WebUI's
ReadStatement = Callable[[], SyncedTurn]  # reads one statement of a row
RESPONSE_SECONDS = 30.0  # for one response
RECORDS_AT_ONCE = 100  # in one transaction
RATINGS_PATH, CHATS_PATH = "/api/v1/evaluations/feedbacks/all/ids", "/api/v1/chats"
NO_ACCESS = "chats that the key may not read"
NOT_SET = "set BURNISH_OPEN_WEBUI_URL and BURNISH_OPEN_WEBUI_API_KEY first"


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The result of a synchronisation.

    `ratings` and `edits` were fetched, since they had changed; `on_policy` of their answers were
    made by this server. The statements are those that are new here. `set_aside`: records skipped,
    by reason.
    """

    ratings: int
    edits: int
    on_policy: int
    votes: int
    corrections: int
    comparisons: int
    taken_back: int
    set_aside: Mapping[str, int]


class OpenWebUI:
    """An Open WebUI, as an administrator's key shows it."""

    def __init__(self, client: httpx.Client) -> None:
        """`client` has the address and the key."""
        self._client = client

    def ratings(self, since: int) -> Iterator[PeerRow]:
        """The ratings that changed since a moment, the oldest first, each with its chat."""
        for row in _changed(self._get(RATINGS_PATH), since):
            yield self._get(f"/api/v1/evaluations/feedback/{row['id']}")

    def chats(self, since: int) -> Iterator[PeerRow]:
        """The chats of all people that changed since a moment."""
        for user in self._get("/api/v1/users/all")["users"]:
            for page in count(1):
                order = {"page": page, "order_by": "updated_at", "direction": "desc"}
                listed = self._get(f"{CHATS_PATH}/list/user/{user['id']}", **order)
                changed = _changed(listed, since)
                for row in changed:
                    yield self._get(f"{CHATS_PATH}/{row['id']}")
                if not listed or len(changed) < len(listed):
                    break

    def _get(self, path: str, **parameters: Any) -> Any:
        """Raises `PeerUnavailable`, or `InvalidInput` where the key is refused."""
        import httpx

        try:
            response = self._client.get(path, params=parameters)
        except httpx.HTTPError as error:
            raise PeerUnavailable(f"Open WebUI does not answer: {type(error).__name__}") from error
        if response.status_code in (401, 403):
            raise InvalidInput(f"Open WebUI refuses the key for {path}")
        if response.status_code != 200:
            raise PeerUnavailable(f"Open WebUI answers {response.status_code} to {path}")
        try:
            return response.json()
        except ValueError as error:
            raise PeerUnavailable(f"Open WebUI answers {path} with no JSON") from error


def _changed(rows: Iterable[PeerRow], since: int) -> list[PeerRow]:
    """Rows that changed at a moment or later: others may have changed within the same second."""
    changed = [row for row in rows if row["updated_at"] >= since]
    return sorted(changed, key=lambda row: int(row["updated_at"]))


def sync_open_webui(workspace: Workspace, *, everything: bool = False) -> SyncReport:
    """Bring in what changed since the last time or, with `everything`, whatever there is.

    Raises `InvalidInput` where no Open WebUI is set or the key is refused, and `PeerUnavailable`;
    the next time then goes on where this one ended.
    """
    import httpx

    settings = workspace.settings
    if settings.open_webui_url is None or settings.open_webui_api_key is None:
        raise InvalidInput(NOT_SET)
    headers = {"Authorization": f"Bearer {settings.open_webui_api_key.get_secret_value()}"}
    with httpx.Client(
        base_url=settings.open_webui_url, headers=headers, timeout=RESPONSE_SECONDS
    ) as client:
        return _Synchronisation(workspace, OpenWebUI(client), everything=everything).run()


def sync_before_round(workspace: Workspace) -> None:
    """Bring in what changed, where an Open WebUI is set; a round does not fail with it."""
    if workspace.settings.open_webui_url is None:
        return
    try:
        sync_open_webui(workspace)
    except BurnishError as error:
        _log.warning("no feedback from Open WebUI: %s", error)


class _Synchronisation:
    """One pass over the ratings and the chats that changed."""

    def __init__(self, workspace: Workspace, peer: OpenWebUI, *, everything: bool) -> None:
        self._store = workspace.store
        self._peer = peer
        self._state = workspace.home.open_webui
        self._since: dict[str, int] = {"ratings": 0, "chats": 0}
        if self._state.is_file() and not everything:
            self._since |= json.loads(self._state.read_text())
        self._counts: Counter[str] = Counter()
        self._set_aside: Counter[str] = Counter()

    def run(self) -> SyncReport:
        """Take the ratings, then the edits, which are newer than the chats beside the ratings."""
        self._take("ratings", self._peer.ratings, lambda row: [partial(synced_rating, row)])
        ratings = self._counts.pop("turns", 0)
        try:
            self._take("chats", self._peer.chats, _edits_in)
        except InvalidInput:  # Open WebUI's ENABLE_ADMIN_CHAT_ACCESS is off
            self._set_aside[NO_ACCESS] += 1
        names = ("on_policy", "votes", "corrections", "comparisons", "taken_back")
        numbers = {name: self._counts[name] for name in names}
        return SyncReport(ratings, self._counts["turns"], **numbers, set_aside=self._set_aside)

    def _take(
        self,
        what: str,
        fetch: Callable[[int], Iterator[PeerRow]],
        records_in: Callable[[PeerRow], list[ReadStatement]],
    ) -> None:
        """Store what changed, some records at a time, and remember how far it went."""
        newest = self._since[what]
        turns: list[SyncedTurn] = []
        for row in fetch(newest):
            newest = max(newest, int(row["updated_at"]))
            turns += filter(None, map(self._read, records_in(row)))
            if len(turns) >= RECORDS_AT_ONCE:
                self._write(turns)
                turns = []
        self._write(turns)
        self._since[what] = newest
        write_atomically(self._state, json.dumps(self._since).encode())

    def _read(self, record: ReadStatement) -> SyncedTurn | None:
        try:
            return record()
        except UnusableRecord as reason:
            self._set_aside[str(reason)] += 1
        except InvalidInput as problem:
            self._set_aside[f"not readable: {problem}"] += 1
        return None

    def _write(self, turns: list[SyncedTurn]) -> None:
        if turns:
            for name, number in self._store.sync_turns(turns, IMPORTED_TEMPLATE).items():
                self._counts[name] += number


def _edits_in(row: PeerRow) -> list[ReadStatement]:
    return [partial(synced_edit, row, name) for name in edited_messages(row)]
