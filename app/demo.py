"""`burnish demo`: the whole loop on the embedded model, with a scripted user for a person.

The user wants answers of one or two sentences. Read `run_demo` from top to bottom: it is the whole
loop in order. Every figure that it returns is measured in that run.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import resources
from itertools import pairwise
from typing import Any

import yaml

from app.answer_options import AnswerOptions
from app.answering import AnswerUpdate
from app.conversation import Chat
from app.scripted_user import USER, first_sentence, is_liked
from app.service import Service, Workspace
from app.settings import Settings
from app.tune import print_step
from deploy.gate import win_rate
from deploy.release import FOLLOW_SECONDS
from engine.home import Home
from engine.prompts.modes import make_template
from engine.prompts.reasoning import split_reasoning
from engine.request import Finished, GenerationRequest, SamplingParams, TextDelta, collect
from engine.storage import digest_json

MAX_NEW_TOKENS = 64
REGENERATED = 16
CORRECTED = 50
SAMPLED = SamplingParams(max_new_tokens=MAX_NEW_TOKENS)
GREEDY = SamplingParams(temperature=0, max_new_tokens=MAX_NEW_TOKENS)
Say = Callable[[str], None]


def run_demo(settings: Settings, say: Say) -> dict[str, Any]:
    """Run the loop in a fresh home and return the figures."""
    home = Home(settings.home).demos / time.strftime("%Y%m%d-%H%M%S")
    clock = StageClock(say)
    with clock.stage("start"):
        service = Service(Workspace(settings.model_copy(update={"home": home})))
        service.start()
        prompts = _prompts()
    try:
        with clock.stage("base answers on unseen prompts"):
            before = _greedy_answers(service, prompts["unseen"])
        with clock.stage("chat and thumbs"):
            shown = _ask_all(service.chat, prompts["feedback"])
            votes = _vote_all(service, shown)
        with clock.stage("regenerate"):
            again = _regenerate(service.chat, shown)
            _vote_all(service, again)
        with clock.stage("correct"):
            corrections = _correct(service, shown)
        with clock.stage("snapshot, tune, gate"):
            recipe, origins = service.workspace.recipe()
            snapshot, bundle, gate = service.workspace.loop.train_and_judge(
                service.engine, service.slots, recipe, origins, print_step
            )
        say(f"gate: {gate.verdict}: {gate.reason}")
        with clock.stage("swap under a running stream"):
            swap = _swap(service, bundle, force=gate.verdict != "better")
        with clock.stage("new answers on unseen prompts"):
            after = _greedy_answers(service, prompts["unseen"])
        with clock.stage("roll back"):
            _rollback(service)
            restored = _greedy_answers(service, prompts["unseen"])
    finally:
        service.close()
    counts = Counts(
        prompts=len(shown),
        votes_up=sum(vote > 0 for vote in votes),
        votes_down=sum(vote < 0 for vote in votes),
        regenerated=len(again),
        corrections=corrections,
    )
    figures = {
        **_comparison(before, after),
        "preference_accuracy_before": gate.incumbent_accuracy,
        "preference_accuracy_after": gate.candidate_accuracy,
        "longer_wins_accuracy": gate.longer_wins_accuracy,
        "heldout_pairs": gate.pairs,
        "gate": {"verdict": gate.verdict, "reason": gate.reason, "gain": asdict(gate.gain)},
        "swap": swap,
        "rollback_restores_base": [a.text for a in before] == [a.text for a in restored],
        "feedback": asdict(counts),
        "seconds": clock.seconds,
        "total_seconds": round(sum(clock.seconds.values()), 1),
        "snapshot": snapshot,
        "bundle": bundle,
        "home": str(home),
    }
    say(_summary(figures))
    return figures


@dataclass(frozen=True, slots=True)
class Counts:
    """How often the scripted user did each thing."""

    prompts: int
    votes_up: int
    votes_down: int
    regenerated: int
    corrections: int


class StageClock:
    """Measures the seconds of each stage."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block and print its seconds."""
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 1)
        self._say(f"{name}: {self.seconds[name]:.1f} s")


# The scripted user


def _ask_all(chat: Chat, questions: Sequence[str]) -> list[AnswerUpdate]:
    """Ask each question in a conversation of its own, many at a time, as many people would."""

    def ask(number: int) -> AnswerUpdate:
        # The ids depend on the question alone, so that every run splits the data alike
        conversation_id = digest_json(questions[number])[7:39]
        options = AnswerOptions(sampling=replace(SAMPLED, seed=number))
        return _last(chat.ask(USER, questions[number], options, conversation_id=conversation_id))

    with ThreadPoolExecutor(len(questions)) as people:
        return list(people.map(ask, range(len(questions))))


def _vote_all(service: Service, answers: Sequence[AnswerUpdate]) -> list[int]:
    """Vote on each answer; returns the votes."""
    votes = []
    for answer in answers:
        vote = 1 if is_liked(answer.text, _ended(answer)) else -1
        service.workspace.store.vote(str(answer.answer_id), USER, 1 if vote > 0 else -1)
        votes.append(vote)
    return votes


def _regenerate(chat: Chat, shown: Sequence[AnswerUpdate]) -> list[AnswerUpdate]:
    """Regenerate answers that were disliked; returns the new ones."""
    disliked = [a for a in shown if not is_liked(a.text, _ended(a))][:REGENERATED]

    def again(number: int) -> AnswerUpdate:
        sampling = replace(SAMPLED, seed=1_000 + number)
        return _last(chat.regenerate(USER, str(disliked[number].answer_id), sampling=sampling))

    with ThreadPoolExecutor(REGENERATED) as people:
        return list(people.map(again, range(len(disliked))))


def _correct(service: Service, shown: Sequence[AnswerUpdate]) -> int:
    """Correct long answers to their first sentence; returns how many."""
    corrected = 0
    for answer in shown:
        sentence = first_sentence(answer.text)
        if corrected < CORRECTED and sentence and not is_liked(answer.text, _ended(answer)):
            service.workspace.store.correct(str(answer.answer_id), USER, sentence)
            corrected += 1
    return corrected


# Serving


def _greedy_answers(service: Service, questions: Sequence[str]) -> list[Finished]:
    """Generate greedy answers with the live release, in one batch."""
    settings = service.workspace.settings
    template = make_template("plain", (), settings.system_prompt)
    with service.slots.pin_live() as adapter:
        requests = [
            GenerationRequest(template.build([], question), GREEDY, adapter)
            for question in questions
        ]
        return [collect(stream) for stream in service.engine.submit_many(requests)]


def _swap(service: Service, bundle: str, *, force: bool) -> dict[str, Any]:
    """Promote a bundle while a stream runs; returns how the stream was affected."""
    template = make_template("plain", (), service.workspace.settings.system_prompt)
    messages = template.build([], "Tell me a long story about a lighthouse.")
    request = GenerationRequest(messages, replace(GREEDY, max_new_tokens=128, ignore_eos=True))
    alone = collect(service.engine.submit(request))
    stream = service.engine.submit(request)
    times: list[float] = []
    ending: list[object] = []

    def read() -> None:
        for event in stream:
            if isinstance(event, TextDelta):
                times.append(time.monotonic())
            else:
                ending.append(event)

    reader = threading.Thread(target=read)
    reader.start()
    while len(times) < 8:
        time.sleep(0.01)
    promoted_at = time.monotonic()
    live = service.workspace.releases.promote(bundle, force=force)
    service.workspace.releases.wait_until_served(live)
    swapped_at = time.monotonic()
    still_running = reader.is_alive()
    reader.join()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return {
        "stream_was_running": still_running,
        "stream_failed": not isinstance(ending[0], Finished),
        "stream_text_unchanged": isinstance(ending[0], Finished) and ending[0].text == alone.text,
        "median_gap_seconds": round(statistics.median(gaps), 3),
        "longest_gap_seconds": round(max(gaps), 3),
        "seconds_until_live": round(swapped_at - promoted_at, 2),
        "live_is_new": service.slots.live == bundle,
    }


def _rollback(service: Service) -> None:
    live = service.workspace.releases.rollback()
    service.workspace.releases.wait_until_served(live)
    time.sleep(FOLLOW_SECONDS)  # by now the last pin, and with it the adapter, is gone


# Figures


def _comparison(before: Sequence[Finished], after: Sequence[Finished]) -> dict[str, Any]:
    """Return which model the scripted user prefers, on prompts without its feedback."""
    old, new = ([_is_liked(answer) for answer in answers] for answers in (before, after))
    wins = sum(n and not o for o, n in zip(old, new, strict=True))
    losses = sum(o and not n for o, n in zip(old, new, strict=True))
    rate = win_rate(wins, len(old) - wins - losses, losses)
    return {
        "win_rate": {
            **asdict(rate),
            "wins": wins,
            "ties": len(old) - wins - losses,
            "losses": losses,
            "prompts": len(old),
        },
        "median_tokens_before": statistics.median(a.completion_tokens for a in before),
        "median_tokens_after": statistics.median(a.completion_tokens for a in after),
        "complete_before": sum(a.reason == "stop" for a in before) / len(before),
        "complete_after": sum(a.reason == "stop" for a in after) / len(after),
        "examples": [
            {"before": b.text, "after": a.text} for b, a in zip(before[:3], after[:3], strict=True)
        ],
    }


def _is_liked(answer: Finished) -> bool:
    return is_liked(split_reasoning(answer.text).answer, answer.reason == "stop")


def _summary(figures: dict[str, Any]) -> str:
    win, swap = figures["win_rate"], figures["swap"]
    return "\n".join(
        [
            "",
            f"win rate over the base    {win['estimate']:.2f} [{win['low']:.2f}, {win['high']:.2f}]"
            f"  ({win['wins']} won, {win['ties']} tied, {win['losses']} lost of {win['prompts']})",
            f"median answer, tokens     {figures['median_tokens_before']:.0f} ->"
            f" {figures['median_tokens_after']:.0f}",
            f"complete answers          {figures['complete_before']:.0%} ->"
            f" {figures['complete_after']:.0%}",
            f"held-out preference       {figures['preference_accuracy_before']:.2f} ->"
            f" {figures['preference_accuracy_after']:.2f} on {figures['heldout_pairs']} pairs",
            f"gate                      {figures['gate']['verdict']}",
            f"swap                      live after {swap['seconds_until_live']:.1f} s; the running"
            f" stream {'failed' if swap['stream_failed'] else 'finished'}, text"
            f" {'unchanged' if swap['stream_text_unchanged'] else 'CHANGED'}, longest gap"
            f" {swap['longest_gap_seconds']:.2f} s (median {swap['median_gap_seconds']:.2f} s)",
            f"rollback                  greedy answers"
            f" {'equal' if figures['rollback_restores_base'] else 'DIFFER FROM'} the base's",
            f"total                     {figures['total_seconds']:.0f} s",
            f"look at it                burnish serve --home {figures['home']}",
        ]
    )


def _prompts() -> dict[str, list[str]]:
    text = resources.files("app").joinpath("demo_prompts.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


def _ended(answer: AnswerUpdate) -> bool:
    return answer.finished is not None and answer.finished.reason == "stop"


def _last(updates: Iterable[AnswerUpdate]) -> AnswerUpdate:
    *_, last = updates
    return last
