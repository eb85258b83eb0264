"""The feedback of the demo's scripted user: it asks, and judges what it reads.

Every question begins a conversation whose id depends on the question alone, so that each run splits
the data alike. The seeds of sampled answers count up from that of the sampling values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

from app.answering.answer_options import AnswerOptions
from app.answering.answering import AnswerUpdate
from app.demo import EvidenceName
from app.demo.scripted_user import Ranking, ScriptedUser, Shown, Wish, WishName, first_sentence
from app.service import Service
from engine.request import Finished, SamplingParams
from engine.storage import digest_json

REGENERATED, CORRECTED = 16, 50  # in the mixed evidence, at most
ANSWERS_EACH, MOST_COMPARISONS = 4, 40  # drawn to compare for each question; comparisons at most
PEOPLE = 16  # at a time


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of times that the scripted user did each thing."""

    prompts: int = 0
    votes_up: int = 0
    votes_down: int = 0
    regenerated: int = 0
    corrections: int = 0
    comparisons: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """A way to give feedback, to how many questions, and the most tokens of their answers.

    `wish` is that of a user who gives it, and `rank` how that user tells answers apart.
    """

    give: Callable[[Service, ScriptedUser, Sequence[str], SamplingParams], Counts]
    questions: int
    max_new_tokens: int
    wish: WishName
    rank: Callable[[Wish], Ranking]


def give_mixed(
    service: Service, user: ScriptedUser, questions: Sequence[str], sampling: SamplingParams
) -> Counts:
    """Thumbs on one answer each, some regenerated and judged as well, some corrected."""
    answers = ask_all(service, user, questions, sampling)
    votes = _vote_all(service, user, answers)
    disliked = [a for a in answers if not user.wish.likes(_shown(a))]
    again = _regenerate(service, user, disliked[:REGENERATED], sampling)
    _vote_all(service, user, again)
    return Counts(
        prompts=len(answers),
        votes_up=votes.count(1),
        votes_down=votes.count(-1),
        regenerated=len(again),
        corrections=_correct(service, user, disliked),
    )


def give_thumbs(
    service: Service, user: ScriptedUser, questions: Sequence[str], sampling: SamplingParams
) -> Counts:
    """Thumbs alone, on two sampled answers to each question."""
    first = ask_all(service, user, questions, sampling)
    answers = [*first, *_regenerate(service, user, first, sampling)]
    votes = _vote_all(service, user, answers)
    return Counts(len(questions), votes.count(1), votes.count(-1))


def give_comparisons(
    service: Service,
    user: ScriptedUser,
    questions: Sequence[str],
    sampling: SamplingParams,
    *,
    most: int = MOST_COMPARISONS,
    likes_chosen: bool = False,
) -> Counts:
    """Choices between the best and the worst of some sampled answers to each question.

    There are `most` choices at most. With `likes_chosen`, each better answer gets a thumb up too.
    """
    first = ask_all(service, user, questions, sampling)
    drawn = [[answer] for answer in first]
    for number in range(1, ANSWERS_EACH):
        for answers, more in zip(
            drawn, _regenerate(service, user, first, sampling, number=number), strict=True
        ):
            answers.append(more)
    made = 0
    for answers in drawn:
        if made < most and (better := _compare(service, user, answers)) is not None:
            made += 1
            if likes_chosen:
                service.workspace.store.vote(str(better.answer_id), user.user_id, 1)
    return Counts(len(questions), votes_up=made * likes_chosen, comparisons=made)


FEEDBACK_WAYS: Mapping[EvidenceName, Evidence] = MappingProxyType(
    {
        "mixed": Evidence(give_mixed, 80, 64, "short", lambda wish: wish.thumb),
        "thumbs": Evidence(give_thumbs, 100, 160, "complete", lambda wish: wish.thumb),
        "comparisons": Evidence(give_comparisons, 80, 160, "short", lambda wish: wish.rank),
    }
)


def ask_all(
    service: Service, user: ScriptedUser, questions: Sequence[str], sampling: SamplingParams
) -> list[AnswerUpdate]:
    """Ask each question in a conversation of its own, many at a time, as many people would."""

    def ask(number: int) -> AnswerUpdate:
        conversation_id = digest_json(questions[number])[7:39]
        options = AnswerOptions(sampling=replace(sampling, seed=sampling.seed + number))
        question, user_id = questions[number], user.user_id
        asked = service.chat.ask(user_id, question, options, conversation_id=conversation_id)
        return _last(asked)

    return _many(ask, len(questions))


def answers_to(
    service: Service, user: ScriptedUser, questions: Sequence[str], sampling: SamplingParams
) -> list[Finished]:
    """Answer questions of this user as in a temporary chat, many at a time; stores nothing."""
    options = AnswerOptions(sampling=sampling)

    def ask(number: int) -> AnswerUpdate:
        return _last(service.chat.ask_unstored(user.user_id, (), questions[number], options))

    return [_finished(answer) for answer in _many(ask, len(questions))]


def _regenerate(
    service: Service,
    user: ScriptedUser,
    answers: Sequence[AnswerUpdate],
    sampling: SamplingParams,
    *,
    number: int = 1,
) -> list[AnswerUpdate]:
    """Regenerate answers; returns the new ones."""

    def again(place: int) -> AnswerUpdate:
        drawn = replace(sampling, seed=sampling.seed + 1_000 * number + place)
        asked = service.chat.regenerate(user.user_id, str(answers[place].answer_id), sampling=drawn)
        return _last(asked)

    return _many(again, len(answers))


def _many(work: Callable[[int], AnswerUpdate], count: int) -> list[AnswerUpdate]:
    with ThreadPoolExecutor(PEOPLE) as people:
        return list(people.map(work, range(count)))


def _vote_all(service: Service, user: ScriptedUser, answers: Sequence[AnswerUpdate]) -> list[int]:
    """Vote on each answer; returns the votes."""
    votes: list[int] = []
    for answer in answers:
        vote = user.vote(_shown(answer))
        service.workspace.store.vote(str(answer.answer_id), user.user_id, vote)
        votes.append(vote)
    return votes


def _correct(service: Service, user: ScriptedUser, answers: Sequence[AnswerUpdate]) -> int:
    """Correct answers to their first sentence; returns how many."""
    corrected = 0
    for answer in answers:
        sentence = first_sentence(answer.text)
        if corrected < CORRECTED and sentence:
            service.workspace.store.correct(str(answer.answer_id), user.user_id, sentence)
            corrected += 1
    return corrected


def _compare(
    service: Service, user: ScriptedUser, answers: Sequence[AnswerUpdate]
) -> AnswerUpdate | None:
    """Choose between the best and the worst answer; returns the best.

    Returns None, and chooses nothing, where the user likes all alike.
    """
    rank = user.wish.rank
    by_rank = sorted(answers, key=lambda answer: rank(_shown(answer)))
    worst, best = by_rank[0], by_rank[-1]
    if rank(_shown(worst)) == rank(_shown(best)) or worst.text == best.text:
        return None
    store = service.workspace.store
    comparison = store.compare(str(best.answer_id), str(worst.answer_id), user.user_id)
    store.choose(comparison.id, user.user_id, user.choose())
    return best


def _shown(answer: AnswerUpdate) -> Shown:
    finished = _finished(answer)
    return Shown(answer.text, finished.reason == "stop", finished.completion_tokens)


def _finished(answer: AnswerUpdate) -> Finished:
    assert answer.finished is not None, "every answer is read to its end"
    return answer.finished


def _last(updates: Iterable[AnswerUpdate]) -> AnswerUpdate:
    *_, last = updates
    return last
