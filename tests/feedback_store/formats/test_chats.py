"""Whole conversations from ChatGPT and Open WebUI: branches, thoughts, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.prompts.reasoning import untagged
from feedback_store.formats import import_conversations, import_file
from feedback_store.formats.importing import ConversationReport
from feedback_store.records import ImportedTurn
from tests.feedback_store.formats.helpers import (
    Listener,
    array,
    chat,
    preference,
    refused,
    turns_in,
)

NOW = 1_700_000_000.0
MODEL = {"model_slug": "gpt-4o"}


# ChatGPT


def message(role: str, *parts: Any, kind: str = "text", **more: Any) -> dict[str, Any]:
    """A message of ChatGPT's."""
    content = {"content_type": kind, "parts": list(parts)}
    return {"author": {"role": role}, "recipient": "all", "content": content, **more}


def conversation(nodes: dict[str, tuple[str, Any]], current: str = "", **more: Any) -> Any:
    """A conversation of its messages by id, each with its parent's; the root has none."""
    mapping: Any = {"root": {"message": None, "parent": None, "children": []}}
    for name, (parent, said) in nodes.items():
        mapping[name] = {"message": said, "parent": parent, "children": []}
        mapping[parent]["children"].append(name)
    return {
        "title": "Counting",
        "create_time": NOW - 9,
        "update_time": NOW,
        "mapping": mapping,
        "current_node": current,
        "conversation_id": "c-1",
        **more,
    }


def answered(*middle: Any, question: Any = None, answer: Any = None) -> Any:
    """One question and its answer, with messages between them."""
    nodes: dict[str, tuple[str, Any]] = {"q": ("root", question or message("user", "One?"))}
    for number, each in enumerate(middle):
        nodes[f"m{number}"] = (list(nodes)[-1], each)
    nodes["a"] = (list(nodes)[-1], answer or message("assistant", "1"))
    return conversation(nodes)


def texts(turns: list[ImportedTurn]) -> list[tuple[list[str], list[str]]]:
    """Of each turn, what is in its prompt and its answers."""
    return [([m.content for m in t.prompt], [a.text for a in t.answers]) for t in turns]


BRANCHES = {
    "q": ("root", message("user", "One?", create_time=NOW - 8)),
    "a1": ("q", message("assistant", "1", metadata=MODEL)),
    "a2": ("q", message("assistant", "uno")),
    "q2": ("a1", message("user", "Two?", create_time=NOW - 5)),
    "q3": ("a1", message("user", "Three?")),
    "a4": ("q2", message("assistant", "2")),
    "a5": ("q3", message("assistant", "3")),
    "q6": ("a5", message("user", "Nobody answers.")),
}


def test_edits_and_regenerated_answers_are_branches(tmp_path: Path) -> None:
    turns = turns_in(tmp_path, conversation(BRANCHES))
    assert texts(turns) == [
        (["One?"], ["1", "uno"]),
        (["One?", "1", "Two?"], ["2"]),
        (["One?", "1", "Three?"], ["3"]),
    ]
    assert turns[1].prompt == chat("One?", "1", "Two?")
    assert {(t.conversation, t.title) for t in turns} == {("c-1", "Counting")}
    assert [t.time for t in turns] == [NOW - 8, NOW - 5, NOW]
    assert [a.model for a in turns[0].answers] == ["gpt-4o", ""]
    assert not any(a.votes for t in turns for a in t.answers)


@pytest.mark.parametrize(
    ("current", "left"),
    [
        ("a2", [1, None, None]),
        ("a4", [None, 0, None]),
        ("q6", [None, None, 0]),
        ("q3", [0, None, None]),
        ("gone", [None, None, None]),
        ("", [None, None, None]),
    ],
)
def test_the_answer_that_a_conversation_was_left_at_is_known(
    current: str, left: list[int | None], tmp_path: Path
) -> None:
    """A question without an answer was left at the answer before it."""
    turns = turns_in(tmp_path, conversation(BRANCHES, current))
    assert [turn.left_at for turn in turns] == left


def test_the_order_of_siblings_is_that_of_the_page_and_not_of_the_file(tmp_path: Path) -> None:
    given = conversation(BRANCHES)
    given["mapping"] = dict(reversed(given["mapping"].items()))
    assert texts(turns_in(tmp_path, given)) == texts(turns_in(tmp_path, conversation(BRANCHES)))


def test_thoughts_between_question_and_answer_are_the_answers_thought(tmp_path: Path) -> None:
    first, second = (
        {"content_type": "thoughts", "thoughts": [{"summary": said, "content": f"{said} it."}]}
        for said in ("Count", "Check")
    )
    recap = {"content_type": "reasoning_recap", "content": "Thought for 5s"}
    between = [message("assistant") | {"content": each} for each in (first, second, recap)]
    (turn,) = turns_in(tmp_path, answered(*between))
    (answer,) = turn.answers
    assert answer.text == "1"
    assert untagged(answer.thought) == "Count\nCount it.\n\nCheck\nCheck it."


def test_the_words_of_an_answer_stay_where_it_used_a_tool(tmp_path: Path) -> None:
    before = message("assistant", "Let me count.")
    call = message("assistant", recipient="python") | {
        "content": {"content_type": "code", "language": "python", "text": "print(1)"}
    }
    result = message("tool") | {"content": {"content_type": "execution_output", "text": "1"}}
    assert texts(turns_in(tmp_path, answered(before, call, result))) == [
        (["One?"], ["Let me count.\n\n1"])
    ]


@pytest.mark.parametrize(
    "hidden",
    [
        message("system", "You are ChatGPT."),
        message("user", "About me", metadata={"is_visually_hidden_from_conversation": True}),
        message("user", "About me", kind="user_editable_context"),
        message("tool", "A page"),
        None,
        {"author": None, "content": None, "metadata": None},
    ],
)
def test_what_the_page_did_not_show_is_left_out(hidden: Any, tmp_path: Path) -> None:
    given = conversation(
        {
            "h": ("root", hidden),
            "q": ("h", message("user", "One?")),
            "a": ("q", message("assistant", "1")),
        }
    )
    assert texts(turns_in(tmp_path, given)) == [(["One?"], ["1"])]


def test_of_pictures_and_voices_the_words_stay(tmp_path: Path) -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    spoken = {"content_type": "audio_transcription", "text": "One?", "direction": "in"}
    for parts in ((picture, "One?"), (spoken, picture)):
        question = message("user", *parts, kind="multimodal_text")
        assert texts(turns_in(tmp_path, answered(question=question))) == [(["One?"], ["1"])]
    without = message("user", picture, kind="multimodal_text")
    nodes = {
        "q": ("root", without),
        "a": ("q", message("assistant", "A cat.")),
        "q2": ("a", message("user", "Two?")),
        "a2": ("q2", message("assistant", "2")),
    }
    assert texts(turns_in(tmp_path, conversation(nodes))) == [(["Two?"], ["2"])]


def test_code_said_to_the_person_is_a_block_and_links_are_their_words(tmp_path: Path) -> None:
    code = message("assistant") | {
        "content": {"content_type": "code", "language": "python", "text": "print(1)"}
    }
    linked = (
        'By \ue200entity\ue202["people","Ada Lovelace","a person"]\ue201'
        ".\ue200cite\ue202turn0search1\ue202turn0search3\ue201"
    )
    assert texts(turns_in(tmp_path, answered(answer=code)))[0][1] == ["```python\nprint(1)\n```"]
    answer = message("assistant", linked)
    assert texts(turns_in(tmp_path, answered(answer=answer)))[0][1] == ["By Ada Lovelace."]


@pytest.mark.parametrize(
    ("more", "complete"),
    [
        ({}, True),
        ({"metadata": {"finish_details": {"type": "stop"}}}, True),
        ({"metadata": {"finish_details": {"type": "interrupted"}}}, False),
        ({"metadata": {"finish_details": {"type": "max_tokens"}}}, False),
        ({"status": "in_progress"}, False),
    ],
)
def test_an_answer_that_was_stopped_or_cut_off_is_not_complete(
    more: Any, complete: bool, tmp_path: Path
) -> None:
    (turn,) = turns_in(tmp_path, answered(answer=message("assistant", "1", **more)))
    assert turn.answers[0].complete is complete


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (conversation({}), "a conversation without an answer in words"),
        (conversation({"q": ("root", message("user", "One?"))}), "without an answer in words"),
        (answered(question=message("user", "One\x00?")), "too long or cannot be stored"),
        (answered(answer=message("assistant", "x" * 400_001)), "too long or cannot be stored"),
    ],
)
def test_a_conversation_of_which_nothing_is_left_is_set_aside(
    given: Any, reason: str, tmp_path: Path
) -> None:
    file = array(tmp_path / "in.json", given, answered())
    report = import_file(Listener(), file)
    assert (report.format, report.turns) == ("chatgpt", 1)
    ((why, count),) = report.set_aside.items()
    assert reason in why
    assert count == 1


def test_a_conversation_that_goes_round_in_a_circle_ends(tmp_path: Path) -> None:
    given = conversation(BRANCHES, "q")
    given["mapping"]["q"]["parent"] = "a1"
    file = array(tmp_path / "in.json", given, answered())
    assert import_file(Listener(), file).set_aside == {
        "a conversation without an answer in words": 1
    }


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (NOW, NOW),
        (1_600_000_000_000, 1_600_000_000.0),
        (4e9, NOW),  # in the future
        (None, NOW),
        ("yesterday", NOW),
        (True, NOW),
        (-5, NOW),
    ],
)
def test_a_time_is_one_that_has_been(found: Any, said: float, tmp_path: Path) -> None:
    """Else the conversation's counts."""
    (turn,) = turns_in(tmp_path, answered(question=message("user", "One?", create_time=found)))
    assert turn.time == said


def test_a_conversation_that_is_none_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, answered() | {"mapping": []}, "'mapping' must be an object")
    refused(tmp_path, answered() | {"mapping": {"a": 7}}, "'mapping' must be an object")


# Open WebUI


WEBUI: dict[str, dict[str, Any]] = {
    "q1": {"parentId": None, "role": "user", "content": "One?", "timestamp": int(NOW) - 8},
    "a1": {"parentId": "q1", "role": "assistant", "content": "1", "model": "llama3", "done": True},
    "a2": {"parentId": "q1", "role": "assistant", "content": "uno", "done": False},
    "q2": {"parentId": "a2", "role": "user", "content": "Two?", "files": [{"type": "image"}]},
    "a3": {"parentId": "q2", "role": "assistant", "content": "2"},
}


def open_webui(messages: Any = WEBUI, **chat_more: Any) -> Any:
    """A row of "Export chats"."""
    history = {"messages": messages, "currentId": "a3"}
    return {
        "id": "w-1",
        "user_id": "u",
        "title": "Zählen",
        "created_at": int(NOW) - 9,
        "updated_at": int(NOW),
        "archived": False,
        "pinned": False,
        "meta": {},
        "chat": {"title": "Zählen", "history": history, "messages": [], "params": {}, **chat_more},
    }


def test_a_chat_of_open_webui_has_its_branches_title_and_times(tmp_path: Path) -> None:
    turns = turns_in(tmp_path, open_webui())
    assert texts(turns) == [(["One?"], ["1", "uno"]), (["One?", "uno", "Two?"], ["2"])]
    assert [(t.title, t.conversation, t.time) for t in turns] == [
        ("Zählen", "w-1", NOW - 8),
        ("Zählen", "w-1", NOW),
    ]
    assert [turn.left_at for turn in turns] == [None, 0]
    assert [(a.model, a.complete) for a in turns[0].answers] == [("llama3", True), ("", False)]


def test_thoughts_and_tools_of_open_webui_are_told_from_the_answer(tmp_path: Path) -> None:
    thought = (
        '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> Hm.\n</details>\n'
    )
    tool = '<details type="tool_calls" done="true">\n<summary>Done</summary>\n</details>\n'
    for content in (f"{thought}{tool}1", f"<think>Hm.</think>\n{tool}1"):
        messages = {**WEBUI, "a1": WEBUI["a1"] | {"content": content}}
        (answer, _) = turns_in(tmp_path, open_webui(messages))[0].answers
        assert (untagged(answer.thought), answer.text) == ("Hm.", "1")


def test_the_system_prompt_of_a_chat_of_open_webui_is_shown(tmp_path: Path) -> None:
    (first, _) = turns_in(tmp_path, open_webui(params={"system": "Count."}))
    assert first.prompt == chat("One?", system="Count.")


# Into a person's list


class Shelf:
    """Keeps the conversations that it is given; it had one of them before."""

    def __init__(self) -> None:
        self.calls: list[list[ImportedTurn]] = []

    def add_conversations(self, turns: Any, template: Any, user_id: str, /) -> int:
        assert (user_id, template.build((), "One?")) == ("ann", chat("One?"))
        self.calls.append(list(turns))
        return len({turn.conversation for turn in self.calls[-1]} - {"c-1"})


def test_conversations_are_handed_on_whole_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_store.formats.importing.TURNS_AT_ONCE", 2)
    names = [f"c-{number}" for number in range(3)]
    rows = [conversation(BRANCHES) | {"conversation_id": name} for name in names]
    shelf = Shelf()
    report = import_conversations(
        shelf, array(tmp_path / "in.json", *rows, conversation({})), user="ann"
    )
    assert [[turn.conversation for turn in call] for call in shelf.calls] == [
        [n] * 3 for n in names
    ]
    assert report == ConversationReport(
        "chatgpt",
        conversations=3,
        added=2,
        turns=9,
        answers=12,
        set_aside={"a conversation without an answer in words": 1},
    )


def test_a_file_of_judgements_is_no_file_of_conversations(tmp_path: Path) -> None:
    file = array(tmp_path / "in.json", preference())
    with pytest.raises(InvalidInput, match=r"known formats: chatgpt, open-webui-chats"):
        import_conversations(Shelf(), file, user="ann")
    assert len(import_file(Listener(), file).set_aside) == 0


def test_a_file_of_two_pages_is_refused(tmp_path: Path) -> None:
    file = array(tmp_path / "in.json", answered(), open_webui())
    with pytest.raises(InvalidInput, match="record 2: is open-webui-chats, while the file began"):
        import_conversations(Shelf(), file, user="ann")
