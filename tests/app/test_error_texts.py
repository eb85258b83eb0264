"""Every error that a person at the pages meets has a Chinese sentence: the real errors, raised."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import gradio as gr
import pytest
from sqlalchemy.exc import OperationalError

from app.answering.answer_options import AnswerOptions
from app.answering.answering import NOT_SAVED, AnswerUpdate
from app.answering.conversation import TRIMMED
from app.answering.live_answers import LiveAnswers
from app.grounding import ground
from app.service import Service
from app.settings import Settings
from app.texts import error_text, translated
from app.ui.errors import report_errors
from app.workspace import Workspace
from deploy.canary.guards import CanaryGuard
from deploy.canary.plan import CanaryOutcome
from deploy.gate.guards import GUARDS, GuardFinding
from deploy.gate.thresholds import default_thresholds
from deploy.gate.verdict import GateReport, _verdict, verdict_line
from deploy.rounds.change_point import RatingWatch
from deploy.rounds.stages import CANARY_RUNS, CANCELLED_JOB, ERASED, QUIET_NOW, USED_UP, unchanged
from deploy.rounds.trigger import EVIDENCE, EvidenceCount, LoopStatus
from engine.errors import BurnishError, EngineFailure, InvalidBundle, StorageFull
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from engine.request import GenerationRequest, SamplingParams
from engine.storage import find_digest, folder_of, translated_disk_errors
from feedback_store.curation.bursts import find_bursts
from feedback_store.documents import reading, sections
from feedback_store.documents.library import Collection
from feedback_store.personal.example_pool import MAX_EXAMPLE_CHARS
from feedback_store.storage.database import _translated
from tests.feedback_store.curation.test_bursts import NEW, brigade, calm, vote
from tests.helpers import make_bundle
from tests.support.chatglm_weights import write_chatglm1_weights
from tests.support.documents import write_blank_pdf
from tuning.evaluation.statistics import Interval
from tuning.methods.reward import RewardRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import AdapterRecipe
from tuning.trainability import require_trainable

CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH_WORDS = re.compile(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}")
FIGURE = re.compile(r"[0-9a-f]{12,}|[-+]?\d+(?:\.\d+)?")
UNKNOWN = error_text(BurnishError(""), "zh")  # how a sentence begins that nothing knows
SHORT = SamplingParams(temperature=0, max_new_tokens=4, ignore_eos=True)
QUESTION = (Message("user", "What is the sea?"),)
ID = "sha256:" + "ab12" * 16


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A home without an engine."""
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


def check(sentence: str, chinese: str) -> None:
    """A Chinese sentence with the figures and ids of the English one."""
    assert CHINESE.search(chinese), sentence
    assert not chinese.startswith(UNKNOWN), sentence
    assert not ENGLISH_WORDS.search(chinese), chinese
    assert Counter(FIGURE.findall(chinese)) == Counter(FIGURE.findall(sentence)), chinese


def check_error(raising: Callable[[], object]) -> None:
    """The same for the error that a call raises; in English it is the error's own sentence."""
    with pytest.raises(BurnishError) as raised:
        raising()
    error = raised.value
    assert error_text(error, "en") == str(error)
    check(str(error), error_text(error, "zh"))


def an_answer(workspace: Workspace, question: str = "What is the sea?") -> str:
    template = PromptTemplate("plain", "", "", ())
    turn = workspace.store.add_turn(
        user_id="ann", question=question, template=template, conversation_id="c"
    )
    answer_id = workspace.store.begin_answer(
        turn.id, base_digest=ID, adapter_digest=None, sampling={}, seed=0
    )
    workspace.store.finish_answer(answer_id, status="done", text="Water.", complete=True)
    return answer_id


def test_what_the_store_refuses(workspace: Workspace) -> None:
    store, curation = workspace.store, workspace.curation
    mine, other = an_answer(workspace), an_answer(workspace, "What is bread?")
    for refused in (
        lambda: store.vote(mine, "ann", cast(Any, 2)),
        lambda: store.vote(mine, "ann", 1, reasons=["wrong_facts"]),
        lambda: store.vote(mine, "ann", 1, comment="x" * 4_001),
        lambda: store.vote(mine, "ann", 1, comment="\x00"),
        lambda: store.vote(mine, "ann", 1, comment="\ud800"),
        lambda: store.vote("0" * 32, "ann", 1),
        lambda: store.vote(mine, "bob", 1),
        lambda: store.correct(mine, "ann", ""),
        lambda: store.correct(mine, "ann", "\x00"),
        lambda: store.compare(mine, other, "ann"),
        lambda: store.choose("0" * 32, "ann", "left"),
        lambda: store.choose("0" * 32, "ann", cast(Any, "middle")),
        lambda: store.history("0" * 32, "ann"),
        lambda: curation.take_back(ID, ""),
        lambda: curation.mark_gold("c1"),
        lambda: workspace.training_set.find("ab12"),
    ):
        check_error(refused)


def test_what_a_canary_refuses(workspace: Workspace) -> None:
    canaries = workspace.canaries
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    workspace.registry.add(bundle, {"verdict": "better"})
    for wrong in ({"share": 0.7}, {"votes": 1}, {"days": 0}, {"promote_error": 0.0}):
        check_error(partial(canaries.start_by, "ann", bundle, **wrong))
    check_error(partial(canaries.stop, "ann"))
    canaries.start_by("ann", bundle)
    check_error(partial(canaries.start_by, "ann", bundle))
    for outcome in get_args(CanaryOutcome):
        check(outcome, translated(outcome, "zh"))
    for guard in get_args(CanaryGuard):
        check(guard, translated(guard, "zh"))


def test_what_accounts_refuse(workspace: Workspace, quick_passwords: None) -> None:
    accounts, password = workspace.accounts, "correct horse battery"
    ann = accounts.join(accounts.invite(), "ann", password)
    invitation = accounts.invite()
    for refused in (
        lambda: accounts.link("x"),
        lambda: accounts.join(invitation, "bob", "short"),
        lambda: accounts.join(invitation, "a b", password),
        lambda: accounts.join(invitation, "ann", password),
        lambda: accounts.sessions.end("x", ann.id),
        lambda: accounts.keys.create(ann.id, ["everything"]),
        lambda: accounts.keys.create(ann.id, label="x" * 65),
        lambda: accounts.keys.revoke("x"),
    ):
        check_error(refused)


def test_what_is_refused_as_a_document(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "MAX_PDF_PAGES", 1)
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 2**20)
    names = {
        "a.exe": b"MZ",
        "a.pdf": b"words",
        "b.pdf": write_blank_pdf(tmp_path / "x", 2).read_bytes(),
        "c.pdf": write_blank_pdf(tmp_path / "x", 1, "secret").read_bytes(),
        "d.pdf": write_blank_pdf(tmp_path / "x", 1).read_bytes(),
        "a.docx": b"words",
        "a.txt": b"%PDF-",
        "b.txt": b"PK\x03\x04",
        "c.txt": bytes(99),
        "d.txt": "Größe".encode("latin-1"),
        "a.html": b"<div>" * 60_000 + b"deep",
    }
    for name, content in names.items():
        file = tmp_path / name
        file.write_bytes(content)
        check_error(partial(sections.read_sections, file, name))
    large = tmp_path / "e.txt"
    large.write_bytes(bytes(2**20 + 1))
    library, own = workspace.documents, Collection("Rules", "ann")
    check_error(partial(reading.index_file, large, "e.txt", tmp_path))
    check_error(partial(library.add, own, large, "x" * 130))
    check_error(partial(library.add, Collection("", "ann"), large, "e.txt"))
    check_error(partial(library.remove, "ann", ID))
    check_error(partial(ground, library, own, "Who?", ()))


def test_what_is_no_example_for_everybody(workspace: Workspace) -> None:
    store, shared = workspace.store, workspace.shared_examples
    silent, long, changed = (an_answer(workspace, question) for question in ("A?", "B?", "C?"))
    store.correct(long, "ann", "x" * MAX_EXAMPLE_CHARS)
    empty = an_answer(workspace, "D?")
    store.finish_answer(empty, status="done", text=" ")
    store.vote(empty, "ann", 1)
    turn = store.add_turn(
        user_id="ann",
        question="And now?",
        template=PromptTemplate("plain", "", "", ()),
        conversation_id="c",
        parent_answer_id=silent,
    )
    follow_up = store.begin_answer(
        turn.id, base_digest=ID, adapter_digest=None, sampling={}, seed=0
    )
    store.finish_answer(follow_up, status="done", text="Water.", complete=True)
    store.vote(follow_up, "ann", 1)
    for answer_id in (silent, long, empty, follow_up, "0" * 32):
        check_error(partial(shared.approve, answer_id))
    check_error(lambda: shared.withdraw(silent))
    store.vote(changed, "ann", 1)
    shared.approve(changed)
    store.correct(changed, "ann", "Salt water.")
    (approval,) = shared.approvals()
    check(approval.refusal, translated(approval.refusal, "zh"))
    workspace.curation.set_consent("ann", False)
    check_error(lambda: shared.approve(changed))


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    check_error(lambda: require_trainable(tmp_path, Recipe()))
    write_chatglm1_weights(tmp_path, heads=2, hidden=32, inner=32, layers=1, eps=1e-5)
    for recipe in (
        Recipe(reward=RewardRecipe(epochs=1)),
        Recipe(adapter=AdapterRecipe(kind="prompt")),
    ):
        check_error(partial(require_trainable, tmp_path, recipe))


def test_what_the_console_refuses(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, registry, releases = workspace.jobs, workspace.registry, workspace.releases
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    registry.add(bundle, {"verdict": "not better"})
    seen = registry.live()
    for refused in (
        workspace.take_snapshot,  # nothing to train on
        lambda: jobs.cancel(ID),
        lambda: find_digest(workspace.home.bundles, "x"),
        lambda: find_digest(workspace.home.bundles, "abcd"),
        lambda: folder_of(workspace.home.bundles, "x"),
        lambda: releases.promote(ID),
        lambda: releases.promote(bundle),
        lambda: releases.promote(bundle, force=True),
        releases.rollback,
    ):
        check_error(refused)
    live = releases.promote(bundle, force=True, reason="why not")
    check_error(lambda: releases.promote(bundle, force=True, reason="why not"))
    check_error(lambda: registry.promote(bundle, seen))
    assert live.bundle == bundle
    taken = jobs.start(
        base_name="no such base", base_digest=ID, snapshot=ID, recipe=Recipe(), recipe_origins={}
    )
    check_error(
        lambda: jobs.start(
            base_name="no such base",
            base_digest=ID,
            snapshot="sha256:" + "0" * 64,
            recipe=Recipe(),
            recipe_origins={},
        )
    )
    check(workspace.loop_status().reason, translated(workspace.loop_status().reason, "zh"))
    jobs.cancel(taken)
    for _ in jobs.wait(taken, poll_seconds=0.05):
        pass
    check_error(lambda: jobs.cancel(taken))
    check_error(lambda: jobs.result(taken))


def test_what_the_engine_and_the_chat_refuse(service: Service) -> None:
    chat, completions = service.chat, service.completions
    limit = service.workspace.settings.max_queue

    def ask(question: str, **more: Any) -> AnswerUpdate:
        place = {"conversation_id": "c", "parent_answer_id": more.pop("parent_answer_id", None)}
        options = AnswerOptions(**{"sampling": SHORT, **more})
        *_, last = chat.ask("ann", question, options, **place)
        return last

    def failed(**how: Any) -> None:
        (queued,) = completions.complete(
            "ann", QUESTION, [SamplingParams(max_new_tokens=1000)], **how
        )
        *_, last = queued
        assert last.error is not None
        raise last.error

    long = "word " * 3000
    for refused in (
        lambda: ask(""),
        lambda: ask("\x00"),
        lambda: ask("\ud800"),
        lambda: ask("x" * (service.workspace.settings.max_message_chars + 1)),
        lambda: ask(long),
        lambda: ask("Hello?", mode="strange"),
        lambda: ask("Hello?", mode="self-consistency"),
        lambda: ask("Hello?", parent_answer_id="0" * 32),
        lambda: completions.complete("ann", (Message("user", long),), [SHORT]),
        lambda: completions.complete("ann", QUESTION, [SHORT] * (limit + 1)),
        lambda: completions.complete("ann", QUESTION, [SHORT], adapter=ID),
        lambda: failed(timeout_seconds=1e-6),
    ):
        check_error(refused)
    chat.running.refuse_more()
    check_error(lambda: ask("Hello?"))
    service.engine.close()
    check_error(lambda: service.engine.submit(GenerationRequest(QUESTION, SHORT)))


def test_one_person_waits_for_a_few_answers_alone() -> None:
    begin = partial(pytest.fail, "it is begun though the person waits for too many")
    answers = LiveAnswers(0)
    check_error(lambda: answers.start("ann", "c", begin))


def test_a_full_disk_and_a_damaged_database(tmp_path: Path) -> None:
    def disk(number: int) -> None:
        with translated_disk_errors():
            raise OSError(number, os.strerror(number), str(tmp_path / "file"))

    def database(message: str) -> None:
        with _translated():
            raise OperationalError("", {}, sqlite3.OperationalError(message))

    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        with pytest.raises(StorageFull) as full:
            disk(number)
        chinese = error_text(full.value, "zh")
        assert chinese.startswith(f"无法写入 {tmp_path / 'file'}：")
        assert CHINESE.search(chinese.rpartition("：")[2])
    for message in (
        "database or disk is full",
        "attempt to write a readonly database",
        "database disk image is malformed",
        "file is not a database",
        "database is locked",
    ):
        check_error(partial(database, message))


@pytest.mark.parametrize("note", [TRIMMED, NOT_SAVED])
def test_the_notes_under_an_answer(note: str) -> None:
    check(note, translated(note, "zh"))


def test_what_the_loop_and_the_gate_say() -> None:
    fell = RatingWatch(90, 0.8, 0.4, 30, fell=True)
    some = {kind.name: EvidenceCount(9, 1, kind.weight) for kind in EVIDENCE}
    for status in (
        LoopStatus(9, 7, 20, False),
        LoopStatus(9, 7, 20, False, {}, tuple(kind.name for kind in EVIDENCE), fell),
        LoopStatus(9, 7, 20, False, some, overdue=True),
    ):
        check(status.reason, translated(status.reason, "zh"))
    for rule in GUARDS:
        for name in (rule.name, rule.fault):
            assert CHINESE.search(translated(name, "zh")), name
    long = GuardFinding("length", "gives longer answers", Interval(0.51, 0.44, 0.6), 0.4, 24, True)
    again = GuardFinding("repetition", "repeats itself", Interval(0.31, 0.12, 0.5), 0.1, 24, True)
    for gain, conversations, guards in (
        (Interval(0.62, 0.25, 0.88), 9, ()),
        (Interval(0.1, -0.25, 0.38), 9, ()),
        (Interval(0.0, -1.0, 1.0), 3, ()),
        (Interval(0.62, 0.25, 0.88), 9, (long, again)),
    ):
        verdict, reason = _verdict(gain, conversations, default_thresholds(), guards)
        report = cast(GateReport, SimpleNamespace(verdict=verdict, reason=reason))
        check(verdict_line(ID, report), translated(verdict_line(ID, report), "zh"))
        check(verdict, translated(verdict, "zh"))
    said = ERASED, CANARY_RUNS, QUIET_NOW, USED_UP, CANCELLED_JOB, unchanged(ID)
    for round_ in ("none yet", "running", "failed: the server's log says why", *said):
        check(round_, translated(round_, "zh"))
    check("failed: not saved: quota 7", translated("failed: not saved: quota 7", "zh"))


def test_what_an_alert_says() -> None:
    fast = [vote("ann", 1, 100 + 2.9 * n, f"a{n:02}") for n in range(21)]
    alerts = find_bursts([*calm(), *brigade(NEW), *fast], {})
    assert {alert.kind for alert in alerts} == {"pace", "brigade"}
    for alert in alerts:
        check(alert.explanation, translated(alert.explanation, "zh"))


def test_several_problems_are_said_one_after_the_other() -> None:
    twice = EngineFailure("the engine stopped; the engine is not running")
    assert error_text(twice, "zh") == "引擎已停止；引擎未运行"


def test_an_error_that_nothing_knows_is_quoted() -> None:
    error = InvalidBundle(["weights.safetensors has a NaN"])
    assert "weights.safetensors has a NaN" in error_text(error, "zh")
    strange = EngineFailure("RuntimeError: CUDA out of memory")
    assert error_text(strange, "zh") == UNKNOWN + "RuntimeError: CUDA out of memory"
    with pytest.raises(gr.Error, match=r"出错了：.*&lt;b&gt;"), report_errors("zh"):
        raise BurnishError("<b>")
