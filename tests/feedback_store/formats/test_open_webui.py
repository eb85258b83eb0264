"""Ratings from Open WebUI keep their people, their reasons and their words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.prompts.reasoning import untagged
from feedback_store.formats import import_file
from feedback_store.records import BAD_REASONS, GOOD_REASONS, ImportedAnswer, ImportedVote
from tests.feedback_store.formats.helpers import Listener, array, chat, turns_in, turns_of

CHAT: dict[str, Any] = {
    "q1": {"parentId": None, "childrenIds": ["a1"], "role": "user", "content": "One?"},
    "a1": {"parentId": "q1", "childrenIds": ["q2"], "role": "assistant", "content": "1"},
    "q2": {"parentId": "a1", "childrenIds": ["a2", "a3"], "role": "user", "content": "Two?"},
    "a2": {"parentId": "q2", "role": "assistant", "content": "2", "model": "good", "done": True},
    "a3": {"parentId": "q2", "role": "assistant", "content": "5", "model": "bad", "done": True},
    "a4": {"parentId": "q2", "role": "assistant", "content": "", "model": "bad", "done": False},
    "a5": {"parentId": "q2", "role": "assistant", "content": "6", "model": "stranger"},
}


def row(rating: Any = 1, *, of: str = "a2", messages: Any = CHAT, **data: Any) -> Any:
    """A row of the export."""
    inner = {"params": {}, "history": {"messages": messages, "currentId": "a2"}, "messages": []}
    return {
        "id": "f1",
        "user_id": "u-7",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "good", **data},
        "meta": {"arena": False, "chat_id": "c-1", "message_id": of, "message_index": 4},
        "snapshot": {"chat": {"id": "c-1", "user_id": "u-7", "title": "Counting", "chat": inner}},
        "created_at": 1,
        "updated_at": 2,
    }


def test_a_rating_is_a_vote_of_its_user_on_the_rated_answer(tmp_path: Path) -> None:
    file = array(tmp_path / "feedback.json", row(1), row(-1, of="a3"))
    good, bad = turns_of(file)
    assert good.prompt == bad.prompt == chat("One?", "1", "Two?")
    assert good.conversation == bad.conversation == "c-1"
    vote, against = ImportedVote("openwebui:u-7", 1), ImportedVote("openwebui:u-7", -1)
    assert good.answers == (ImportedAnswer("2", model="good", votes=(vote,)),)
    assert bad.answers == (ImportedAnswer("5", model="bad", votes=(against,)),)


def test_a_thumb_up_beside_siblings_is_a_win_over_them(tmp_path: Path) -> None:
    """`a4` was never finished and `a5` is by a model that the rating does not name."""
    (turn,) = turns_in(tmp_path, row(1, sibling_model_ids=["bad"]))
    assert [answer.text for answer in turn.answers] == ["2", "5"]
    assert [(c.user, c.left, c.right, c.choice) for c in turn.choices] == [
        ("openwebui:u-7", 0, 1, "left")
    ]


@pytest.mark.parametrize("rating", [-1, 0])
def test_a_thumb_down_beside_siblings_says_nothing_of_them(rating: int, tmp_path: Path) -> None:
    (turn,) = turns_in(tmp_path, row(rating, sibling_model_ids=["bad"]))
    assert ([answer.text for answer in turn.answers], turn.choices) == (["2"], ())


@pytest.mark.parametrize(
    ("data", "reasons", "comment"),
    [
        ({"reason": "accurate_information"}, ("right_facts",), ""),
        ({"reason": "Accurate information"}, ("right_facts",), ""),
        ({"reason": "followed_instructions_perfectly", "comment": "Yes!"}, ("followed",), "Yes!"),
        ({"reason": "thorough_explanation"}, ("other",), "thorough_explanation"),
        (
            {"reason": "attention_to_detail", "comment": "Nice."},
            ("other",),
            "attention_to_detail; Nice.",
        ),
        ({"reason": "other", "comment": "Hm."}, ("other",), "Hm."),
        ({"reason": "", "comment": None, "details": {"rating": 9}}, (), "rated 9 of 10"),
        ({"reason": None, "details": {"rating": None}}, (), ""),
    ],
)
def test_reasons_are_ours_where_we_have_the_word_and_else_kept_in_the_comment(
    data: Any, reasons: tuple[str, ...], comment: str, tmp_path: Path
) -> None:
    (turn,) = turns_in(tmp_path, row(1, **data))
    (vote,) = turn.answers[0].votes
    assert (vote.reasons, vote.comment) == (reasons, comment)
    assert set(reasons) <= set(GOOD_REASONS)


def test_bad_reasons_have_words_too(tmp_path: Path) -> None:
    given = {
        "Not factually correct": "wrong_facts",
        "didnt_fully_follow_instructions": "did_not_follow",
        "Didn't fully follow instructions": "did_not_follow",
        "too_verbose": "too_long",
        "dont_like_the_style": "bad_style",
        "being_lazy": "other",
    }
    turns = turns_in(tmp_path, *(row(-1, reason=reason) for reason in given))
    found = [turn.answers[0].votes[0].reasons for turn in turns]
    assert found == [(ours,) for ours in given.values()]
    assert set(given.values()) <= set(BAD_REASONS)


@pytest.mark.parametrize(
    "block",
    [
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds'
        "</summary>\n> 1 < 2 &amp; so\n> on\n</details>\n",
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds'
        "</summary>\n&gt; 1 &lt; 2 &amp;amp; so\n&gt; on\n</details>\n",
    ],
)
def test_a_folded_thought_is_a_thought(block: str, tmp_path: Path) -> None:
    """Older versions fold the text as it is, newer ones escape it first."""
    messages = {
        **CHAT,
        "a1": CHAT["a1"] | {"content": block + "1"},
        "a2": CHAT["a2"] | {"content": block + "2"},
    }
    (turn,) = turns_in(tmp_path, row(messages=messages))
    (answer,) = turn.answers
    assert (untagged(answer.thought), answer.text) == ("1 < 2 &amp; so\non", "2")
    assert turn.prompt == chat("One?", "1", "Two?")  # no model is shown its old thoughts


def folded(kind: str, inside: str, **attributes: str) -> str:
    """A block as Open WebUI keeps it in a message."""
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    summary = "<summary>Done</summary>"
    return f'<details type="{kind}" done="true"{more}>\n{summary}\n{inside}\n</details>\n'


THOUGHTS = [folded("reasoning", "> First.", duration="3"), folded("reasoning", "&gt; Then.")]
TOOLS = [
    folded("tool_calls", "", name="clock", arguments="&quot;{}&quot;", result="&quot;12:00&quot;"),
    folded("code_interpreter", "```python\nprint(2)\n```", output="&quot;2&quot;"),
]


def said(answer: str, before: str = "1", siblings: bool = False) -> Any:
    """A row whose rated answer, and the one before it, say this."""
    messages = {
        **CHAT,
        "a1": CHAT["a1"] | {"content": before},
        "a2": CHAT["a2"] | {"content": answer},
        "a3": CHAT["a3"] | {"content": f"{TOOLS[0]}5" if siblings else "5"},
    }
    return row(messages=messages, sibling_model_ids=["bad"])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("order", ["{thought}{tool}", "{tool}{thought}", "{tool}"])
def test_an_answer_that_used_a_tool_is_set_aside_wherever_its_block_stands(
    tool: str, order: str, tmp_path: Path
) -> None:
    used = order.format(thought=THOUGHTS[0], tool=tool) + "2"
    listener = Listener()
    report = import_file(listener, array(tmp_path / "in", said("2"), said(used)))
    assert (report.turns, report.set_aside) == (1, {"an answer that uses tools": 1})
    assert listener.turns[0].answers[0].text == "2"


def test_a_tool_in_an_earlier_answer_or_beside_the_rated_one_leaves_no_block(
    tmp_path: Path,
) -> None:
    before = f"{THOUGHTS[0]}{TOOLS[0]}{THOUGHTS[1]}{TOOLS[1]}1"
    (turn,) = turns_in(tmp_path, said("2", before, siblings=True))
    assert turn.prompt == chat("One?", "1", "Two?")
    assert [answer.text for answer in turn.answers] == ["2"]


def test_several_folded_thoughts_are_one_thought(tmp_path: Path) -> None:
    (turn,) = turns_in(tmp_path, said(f"{THOUGHTS[0]}{THOUGHTS[1]}\n2"))
    assert (untagged(turn.answers[0].thought), turn.answers[0].text) == ("First.\n\nThen.", "2")


def test_a_thought_that_was_not_folded_is_one_too(tmp_path: Path) -> None:
    (turn,) = turns_in(tmp_path, said("<think>First.</think>2"))
    assert (untagged(turn.answers[0].thought), turn.answers[0].text) == ("First.", "2")


def test_a_block_of_another_kind_is_text(tmp_path: Path) -> None:
    text = "<details>\n<summary>More</summary>\n2\n</details>"
    (turn,) = turns_in(tmp_path, said(text))
    assert turn.answers[0].text == text


def test_the_chats_own_system_prompt_is_part_of_the_prompt(tmp_path: Path) -> None:
    given = row()
    given["snapshot"]["chat"]["chat"]["params"] = {"system": "Count."}
    (turn,) = turns_in(tmp_path, given)
    assert turn.prompt == chat("One?", "1", "Two?", system="Count.")


def test_an_answer_that_was_stopped_is_not_complete(tmp_path: Path) -> None:
    messages = {**CHAT, "a2": CHAT["a2"] | {"done": False}}
    (turn,) = turns_in(tmp_path, row(messages=messages))
    assert not turn.answers[0].complete


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (row() | {"snapshot": None}, "there is no 'snapshot'"),
        (row("great"), "'rating' must be"),
        (row(True), "'rating' must be"),
        (row([1]), "'rating' must be"),
        (row(of="gone"), "lacks a message"),
        (row(of="q2"), "not an assistant's"),
        (row(messages={**CHAT, "q1": CHAT["q1"] | {"parentId": "q2"}}), "in a circle"),
        (row(messages={**CHAT, "a2": CHAT["a2"] | {"content": " "}}), "answer is empty"),
        (row(messages={**CHAT, "a2": CHAT["a2"] | {"parentId": None}}), "end with a user message"),
        (row() | {"user_id": ""}, "'user_id' is empty"),
        (row(comment="\ud800"), "lone surrogate"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused(given: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=reason):
        turns_in(tmp_path, given)
