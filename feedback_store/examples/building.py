"""The definition of the training set: all evidence in, all examples out. Pure.

`view` keeps the same examples in the database and updates them as people go on judging; a test
compares the two on any history. docs/feedback.md says in prose what stands here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from feedback_store.examples.pairing import PromptExamples, build_prompt_examples
from feedback_store.examples.rules import OVER_CAP, Rules
from feedback_store.examples.selection import as_decided, reasons_against
from feedback_store.examples.shares import over_cap, user_cap, users_of
from feedback_store.examples.trust import Judgement, Trust, estimate_trust
from feedback_store.examples.types import (
    EXAMPLE_KINDS,
    Examples,
    TrainingExample,
    label_of,
    set_aside,
)
from feedback_store.records import CurrentVote, ExampleDecision, PromptEvidence


def build_examples(
    evidence: Iterable[PromptEvidence], decisions: Mapping[str, ExampleDecision], rules: Rules
) -> Examples:
    """Build the examples of all prompts; set aside, with its reason, what is not trained on.

    `decisions` are the operator's latest, by the example's id. Examples come in the order in which
    people spoke, whatever the order of the evidence.
    """
    prompts = list(evidence)
    votes = [vote for prompt in prompts for vote in prompt.votes]
    trust = trust_in_voters(votes, rules.refusing_users)
    return choose_examples(
        [build_prompt_examples(prompt, rules, trust) for prompt in prompts],
        decisions,
        rules,
        flip_rate=trust.flip_rate,
    )


def choose_examples(
    prompts: Sequence[PromptExamples],
    decisions: Mapping[str, ExampleDecision],
    rules: Rules,
    *,
    flip_rate: float | None = None,
) -> Examples:
    """Choose among all prompts' examples: decisions, then duplicates, then users' shares."""
    result = Examples(flip_rate=flip_rate)
    result.set_aside += [item for prompt in prompts for item in prompt.set_aside]

    def keep(
        examples: Sequence[TrainingExample], reasons: Iterable[str | None]
    ) -> list[TrainingExample]:
        kept = []
        for example, reason in zip(examples, reasons, strict=True):
            if reason is None:
                kept.append(example)
            else:
                result.set_aside.append(set_aside(reason, example))
        return kept

    for kind in EXAMPLE_KINDS:
        distinct: list[TrainingExample] = []
        for alike in _groups_of_alike(prompts, kind):
            edited = [as_decided(example, decisions.get(example.id)) for example in alike]
            distinct += keep(edited, reasons_against(edited, decisions))
        distinct.sort(key=spoken_order)
        result.of_kind(kind).extend(keep(distinct, _reasons_of_shares(distinct, rules)))
    result.set_aside.sort(key=lambda item: (item.event_ids[0], item.reason))
    return result


def trust_in_voters(votes: Iterable[CurrentVote], refusing_users: Collection[str]) -> Trust:
    """Estimate whose votes count for how much, from all votes of those who consent."""
    return estimate_trust(
        Judgement(vote.answer_id, vote.user_id, vote.vote > 0)
        for vote in votes
        if vote.user_id not in refusing_users
    )


def spoken_order(example: TrainingExample) -> tuple[int, str]:
    """Sort key: the number of the first event that an example rests on, then its id."""
    return example.origin.event_ids[0], example.id


def _groups_of_alike(
    prompts: Iterable[PromptExamples], kind: str
) -> Iterator[list[TrainingExample]]:
    """Examples of one topic and one label, which may be duplicates, in the order people spoke."""
    groups: dict[tuple[bytes, bool], list[TrainingExample]] = defaultdict(list)
    for prompt in prompts:
        for example in prompt.of_kind(kind):
            groups[prompt.topic, label_of(example)].append(example)
    for group in groups.values():
        yield sorted(group, key=spoken_order)


def _reasons_of_shares(examples: Sequence[TrainingExample], rules: Rules) -> Iterator[str | None]:
    users = [users_of(example) for example in examples]
    counts = Counter(user for some in users for user in set(some))
    cap = user_cap(len(users), counts, share=rules.user_share, floor=rules.user_floor)
    for over in over_cap(users, cap):
        yield OVER_CAP if over else None
