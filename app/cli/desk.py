"""`burnish desk`: what needs the operator, how it goes, what happens next; as on the console."""

from __future__ import annotations

import time

from app.cli.common import HomeOption, Json, open_workspace, print_result


def show_desk(home: HomeOption = None, as_json: Json = False) -> None:
    """Say what waits for you, how people like the answers, and what the loop does next."""
    from app.html.desk_words import DeskWords, desk_text
    from app.learning.desk import DeskReader
    from app.texts import DEFAULT

    with open_workspace(home) as workspace:
        desk = DeskReader(workspace).read()
    print_result(as_json, desk.as_dict(), desk_text(DeskWords(desk, DEFAULT, time.time())))
