"""Documents over HTTP: a person's own files, and answers from them that cite what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.grounding import CHINESE_WORDING, ENGLISH
from app.service import Service
from app.web.chat.documents import UNSUPPORTED
from app.web.chat.documents_api import DOCUMENTS_PATH as PATH
from feedback_store.documents import reading
from feedback_store.documents.library import Collection
from tests.app.conftest import Played
from tests.app.web.test_chat_api import Stream, ask, view
from tests.support.documents import read_in_this_process, write_pdf

LEAVE = "# Leave\n\nEmployees have thirty days of vacation a year.\n\n# 差旅\n\n火车票订二等座。\n"
ABOUT_LEAVE = "How many vacation days do employees have?"
HANDBOOK = {"name": "Handbook", "shared": False}
Person = Callable[[], httpx.Client]


@pytest.fixture(scope="module")
def stage(api_stage: Played) -> Played:
    """No page is looked at here, and no answer on its way."""
    return api_stage


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest) -> Iterator[None]:
    """Read files in this process, but for the tests of real ones."""
    if request.node.get_closest_marker("integration"):
        yield
    else:
        with read_in_this_process():
            yield


@pytest.fixture
def person(played: Played) -> Iterator[Person]:
    """A new person's client, each time it is called."""
    clients: list[httpx.Client] = []

    def make() -> httpx.Client:
        clients.append(httpx.Client(base_url=played.url, timeout=60))
        clients[-1].get("/", headers={"accept": "text/html"})
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def put(
    client: httpx.Client, name: str, content: bytes | str, collection: str = "Handbook"
) -> httpx.Response:
    return client.post(PATH, params={"collection": collection, "name": name}, content=content)


@pytest.fixture
def reader(person: Person) -> httpx.Client:
    """A person with a document."""
    client = person()
    assert put(client, "leave.md", LEAVE).status_code == 200
    return client


def prompt_of(played: Played) -> str:
    """The user's message of the last request to the engine."""
    return played.engine.requests[-1].messages[-1].content


@pytest.mark.integration
def test_a_document_is_added_found_and_removed_by_its_person_alone(
    reader: httpx.Client, person: Person
) -> None:
    (listed,) = reader.get(PATH).json()["own"]
    assert (listed["name"], listed["collection"]) == ("leave.md", "Handbook")
    asked = {"collection": "Handbook", "question": ABOUT_LEAVE}
    (found, *_) = reader.get(f"{PATH}/search", params=asked).json()["passages"]
    assert (found["source"], found["heading"]) == ("leave.md", "Leave")
    other = person()
    assert other.get(PATH).json()["own"] == []
    assert other.get(f"{PATH}/search", params=asked).json() == {"passages": []}
    assert other.delete(f"{PATH}/{listed['id']}").status_code == 404
    assert reader.delete(f"{PATH}/{listed['id']}").status_code == 200
    assert reader.delete(f"{PATH}/{listed['id']}").status_code == 404
    assert reader.get(PATH).json()["own"] == []


def test_a_file_that_cannot_be_read_is_refused_in_the_persons_language(person: Person) -> None:
    client = person()
    refused = put(client, "a.pdf", b"no pdf")
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "a.pdf cannot be read: it is no PDF file"
    client.headers["accept-language"] = "zh"
    said = put(client, "a.pdf", b"no pdf").json()["error"]["message"]
    assert said == "无法读取 a.pdf：这不是 PDF 文件"
    assert client.get(PATH).json()["own"] == []


def test_a_file_over_the_limit_is_refused_before_it_is_received(
    person: Person, played: Played
) -> None:
    refused = put(person(), "a.txt", b"x" * (reading.MAX_FILE_BYTES + 1))
    assert refused.status_code == 413
    assert list(played.service.workspace.home.imports.glob("*")) == []


def test_an_answer_is_made_from_passages_and_cites_them(
    reader: httpx.Client, played: Played
) -> None:
    played.engine.says = "Employees have thirty days [1]. Lunch on Fridays is free for them [1]."
    stream = ask(reader, ABOUT_LEAVE, documents=HANDBOOK)
    shown = prompt_of(played)
    assert shown.startswith(ENGLISH.instruction)
    assert "[1] leave.md, Leave\nEmployees have thirty days of vacation a year." in shown
    assert shown.endswith(f"Question: {ABOUT_LEAVE}")
    (turn,) = view(reader, stream.conversation)["turns"]
    assert turn["question"] == ABOUT_LEAVE
    (passage,) = turn["passages"]
    assert (passage["source"], passage["heading"]) == ("leave.md", "Leave")
    assert turn["answer"]["html"].count(UNSUPPORTED) == 1
    assert f"for them [1].{UNSUPPORTED}" in turn["answer"]["html"]


def test_a_sentence_that_cites_nothing_is_shown_with_the_passage_that_supports_it(
    reader: httpx.Client, played: Played
) -> None:
    played.engine.says = "Employees have thirty days of vacation."
    stream = ask(reader, ABOUT_LEAVE, documents=HANDBOOK)
    (turn,) = view(reader, stream.conversation)["turns"]
    assert "thirty days of vacation. [1]" in turn["answer"]["html"]
    assert reader.get(f"/api/answers/{stream.answer}").json()["text"] == played.engine.says


def test_training_sees_the_prompt_as_it_was_shown_whatever_became_of_the_document(
    reader: httpx.Client, played: Played
) -> None:
    stream = ask(reader, ABOUT_LEAVE, documents=HANDBOOK)
    shown = played.engine.requests[-1].messages
    (document,) = reader.get(PATH).json()["own"]
    reader.delete(f"{PATH}/{document['id']}")
    user = user_of(played.service, stream)
    _, stored = played.service.workspace.store.shown_prompt(stream.answer, user)
    assert stored == shown


def user_of(service: Service, stream: Stream) -> str:
    """Whose conversation it is."""
    from sqlalchemy import select

    from feedback_store.storage import tables as t

    query = select(t.turns.c.user_id).where(t.turns.c.conversation_id == stream.conversation)
    with service.workspace.database.read() as connection:
        return str(connection.execute(query).scalar_one())


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who won the football cup?", ENGLISH.not_there),
        ("珠穆朗玛峰有多高？", CHINESE_WORDING.not_there),
    ],
)
def test_where_nothing_is_found_the_answer_says_so_without_the_model(
    reader: httpx.Client, played: Played, question: str, answer: str
) -> None:
    asked = len(played.engine.requests)
    stream = ask(reader, question, documents=HANDBOOK)
    assert len(played.engine.requests) == asked
    assert stream.ended["status"] == "done"
    stored = reader.get(f"/api/answers/{stream.answer}").json()
    assert stored["text"] == answer
    assert reader.post(f"/api/answers/{stream.answer}/vote", json={"vote": 1}).status_code == 200


def test_a_collection_without_documents_is_refused(reader: httpx.Client, person: Person) -> None:
    for client, documents in ((person(), HANDBOOK), (reader, {**HANDBOOK, "shared": True})):
        body = {"question": ABOUT_LEAVE, "documents": documents}
        refused = client.post("/chat/questions", json=body)
        assert refused.status_code == 400
        assert "has no documents" in refused.json()["error"]["message"]


def test_a_chinese_question_is_asked_in_chinese(reader: httpx.Client, played: Played) -> None:
    ask(reader, "火车票订几等座？", documents=HANDBOOK)
    assert prompt_of(played).startswith(CHINESE_WORDING.instruction)
    assert "[1] leave.md, 差旅\n火车票订二等座。" in prompt_of(played)


def test_a_question_that_means_nothing_alone_is_searched_with_the_one_before(
    reader: httpx.Client, played: Played
) -> None:
    first = ask(reader, ABOUT_LEAVE, documents=HANDBOOK)
    ask(
        reader,
        "And how many did you say?",
        documents=HANDBOOK,
        conversation_id=first.conversation,
        parent_answer_id=first.answer,
    )
    assert "thirty days of vacation" in prompt_of(played)


def test_a_later_question_that_stands_for_itself_is_searched_alone(
    reader: httpx.Client, played: Played
) -> None:
    first = ask(reader, ABOUT_LEAVE, documents=HANDBOOK)
    place = {"conversation_id": first.conversation, "parent_answer_id": first.answer}
    later = ask(reader, "Who won the football cup?", documents=HANDBOOK, **place)
    stored = reader.get(f"/api/answers/{later.answer}").json()
    assert stored["text"] == ENGLISH.not_there


def test_a_long_document_leaves_room_for_the_answer(person: Person, played: Played) -> None:
    client = person()
    put(client, "long.txt", "The gate of the northern harbour closes at noon every day. " * 400)
    played.engine.context_tokens, before = 300, played.engine.context_tokens
    try:
        ask(client, "When does the harbour gate close?", documents=HANDBOOK)
    finally:
        played.engine.context_tokens = before
    assert "[1] long.txt" in prompt_of(played)
    assert "[2] long.txt" not in prompt_of(played)


def test_shared_documents_are_everybodys_to_ask_and_nobodys_to_change(
    person: Person, played: Played, tmp_path: Path
) -> None:
    file = write_pdf(tmp_path / "pump.pdf", ["The pump needs oil every ten hours."])
    library = played.service.workspace.documents
    added = library.add(Collection("Machines"), file, "pump.pdf")
    client = person()
    assert [each["name"] for each in client.get(PATH).json()["shared"]] == ["pump.pdf"]
    shared = {"name": "Machines", "shared": True}
    stream = ask(client, "How often does the pump need oil?", documents=shared)
    assert stream.ended["turn"]["passages"][0]["page"] == 1
    assert client.delete(f"{PATH}/{added.id}").status_code == 404
    library.remove(None, added.id)


def test_a_temporary_chat_stores_nothing_and_still_cites(
    reader: httpx.Client, played: Played
) -> None:
    played.engine.says = "Employees have thirty days [1]. Moon rockets burn green cheese."
    stream = ask(reader, ABOUT_LEAVE, documents=HANDBOOK, temporary=True)
    assert [each["source"] for each in stream.ended["passages"]] == ["leave.md"]
    assert UNSUPPORTED in stream.ended["grounded_html"]


def test_answers_from_documents_are_no_examples_for_other_questions(
    reader: httpx.Client, played: Played
) -> None:
    stream = ask(reader, ABOUT_LEAVE, documents=HANDBOOK)
    reader.post(f"/api/answers/{stream.answer}/vote", json={"vote": 1})
    ask(reader, ABOUT_LEAVE)
    assert len(played.engine.requests[-1].messages) == 2  # the system prompt and the question


def test_who_is_forgotten_leaves_no_document(person: Person, played: Played) -> None:
    client = person()
    put(client, "secret.txt", "The canary of the mine sings at dawn.")
    home = played.service.workspace.home
    assert with_canary(home.root) != []
    assert client.get("/chat/person/data").json()["documents"][0]["name"] == "secret.txt"
    assert client.post("/chat/person/forget").json()["status"] == "forgotten"
    assert with_canary(home.root) == []


def with_canary(root: Path) -> list[Path]:
    files: list[Any] = [file for file in root.rglob("*") if file.is_file()]
    return [file for file in files if b"canary" in file.read_bytes()]
