"""`burnish demo`: the whole loop in a fresh home. Read `run_demo` from top to bottom.

The scripted user wants answers of one or two sentences; where it gives thumbs alone, answers that
come to an end. With several rounds each has fresh prompts, and in the fourth the user changes its
mind: from then on it wants at least three sentences. Every figure that is returned is measured in
that run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from app.demo import EvidenceName
from app.demo.feedback import FEEDBACK_WAYS
from app.demo.figures import Say, StageClock, comparison, comparison_lines, recipe_changes, summary
from app.demo.scripted_user import WISHES, ScriptedUser, WishName, shown
from app.demo.serving import MEASURED, answers_of_live, roll_back, swap, tune_and_judge
from app.service import Service
from app.settings import Settings
from app.workspace import Workspace
from engine.errors import InvalidInput
from engine.home import Home
from engine.request import Finished, SamplingParams
from engine.storage import folder_of, read_manifest
from engine.yaml_files import shipped_yaml
from feedback_store.formats.importing import import_file
from tuning.evaluation.generic import perplexity, score_passages
from tuning.evaluation.roles import adapters_of
from tuning.replay import ImportedTurns

CHANGED_IN_ROUND = 4
PROMPTS_OF_A_ROUND = 40
MOST_ROUNDS = 5
EXAMPLES_SHOWN = 3
SEEDS_APART = 100_000  # those of two runs' sampled answers
OTHER_PROMPTS = 60  # of a file, at most


def run_demo(
    settings: Settings,
    say: Say,
    evidence: EvidenceName = "mixed",
    other_prompts: Sequence[str] = (),
    *,
    reversed_share: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the loop once and return the figures; `other_prompts` are compared as well.

    `reversed_share` of the votes and choices are the wrong way round. `seed` is that of the
    sampled answers and of the recipe. The comparison is greedy, and once more, under "drawn", of
    answers that are drawn as the chat draws them.
    """
    if not 0 <= reversed_share <= 1:
        raise InvalidInput("the share of reversed statements must lie in 0..1")
    clock = StageClock(say)
    given = FEEDBACK_WAYS[evidence]
    wish = WISHES[given.wish]
    user, rank = ScriptedUser(wish, reversed_share), given.rank(wish)
    with clock.stage("start"):
        service, home = start_in_new_home(settings)
        prompts = read_questions()
    unseen = len(prompts["unseen"])
    asked = [*prompts["unseen"], *other_prompts]
    sampling = SamplingParams(max_new_tokens=given.max_new_tokens, seed=SEEDS_APART * seed)
    greedy = replace(sampling, temperature=0)
    drawn = replace(sampling, seed=sampling.seed + SEEDS_APART // 2)  # as no feedback was
    try:
        with clock.stage("base answers on unseen prompts"):
            before = answers_of_live(service, asked, greedy)
            drawn_before = answers_of_live(service, asked, drawn)
        with clock.stage(f"feedback: {evidence}"):
            questions = prompts["feedback"][: given.questions]
            counts = given.give(service, user, questions, sampling)
        with clock.stage("snapshot, tune, gate"):
            recipe, origins = service.workspace.recipe()
            recipe = replace(recipe, seed=seed)
            snapshot, bundle, gate = tune_and_judge(service, recipe, origins)
        alerts = sorted({alert["kind"] for alert in service.workspace.alerts()})
        say(f"gate: {gate.verdict}: {gate.reason}")
        with clock.stage("swap under a running stream"):
            swapped = swap(service, bundle, force=gate.verdict != "better")
        with clock.stage("new answers on unseen prompts"):
            after = answers_of_live(service, asked, greedy)
            drawn_after = answers_of_live(service, asked, drawn)
        with clock.stage("roll back"):
            roll_back(service)
            restored = answers_of_live(service, prompts["unseen"], greedy)
    finally:
        service.close()

    def compared(old: Sequence[Finished], new: Sequence[Finished]) -> dict[str, Any]:
        others = comparison(wish, rank, old[unseen:], new[unseen:]) if other_prompts else None
        return {**comparison(wish, rank, old[:unseen], new[:unseen]), "other_prompts": others}

    figures = {
        "evidence": evidence,
        "reversed_share": reversed_share,
        "seed": seed,
        "recipe": recipe_changes(recipe),
        **compared(before, after),
        "drawn": compared(drawn_before, drawn_after),
        "examples": [
            {"before": b.text, "after": a.text}
            for b, a in zip(before[:EXAMPLES_SHOWN], after[:EXAMPLES_SHOWN], strict=True)
        ],
        "preference_accuracy_before": gate.incumbent_accuracy,
        "preference_accuracy_after": gate.candidate_accuracy,
        "longer_wins_accuracy": gate.longer_wins_accuracy,
        "heldout_pairs": gate.pairs,
        "gate": {"verdict": gate.verdict, "reason": gate.reason, "gain": asdict(gate.gain)},
        "swap": swapped,
        "rollback_restores_base": [shown(a) for a in before[:unseen]]
        == [shown(a) for a in restored],
        "feedback": asdict(counts),
        "alerts": alerts,
        **clock.cost(),
        "snapshot": snapshot,
        "bundle": bundle,
        "home": str(home),
    }
    say(summary(figures))
    return figures


def run_rounds(
    settings: Settings, say: Say, rounds: int, evidence: EvidenceName = "comparisons"
) -> dict[str, Any]:
    """Run the loop several times on fresh prompts; returns the figures of each round.

    Each round's release answers in the next one, whatever the gate says of it, which is among the
    figures. Win rates are over the base, by the wish of the round. Raises `InvalidInput` for more
    rounds than there are prompts for.
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise InvalidInput(f"rounds must lie in 1..{MOST_ROUNDS}, which there are prompts for")
    clock, given = StageClock(say), FEEDBACK_WAYS[evidence]
    service, home = start_in_new_home(settings)
    prompts = read_questions()
    sampling = SamplingParams(max_new_tokens=given.max_new_tokens)
    greedy = replace(sampling, temperature=0)
    done: list[dict[str, Any]] = []
    try:
        base = answers_of_live(service, prompts["unseen"], greedy)
        recipe, origins = service.workspace.recipe()
        for number in range(1, rounds + 1):
            name: WishName = given.wish if number < CHANGED_IN_ROUND else "full"
            wish = WISHES[name]
            first = (number - 1) * PROMPTS_OF_A_ROUND
            questions = prompts["feedback"][first : first + PROMPTS_OF_A_ROUND]
            with clock.stage(f"round {number}: feedback"):
                counts = given.give(service, ScriptedUser(wish), questions, sampling)
            with clock.stage(f"round {number}: snapshot, tune, gate"):
                snapshot, bundle, gate = tune_and_judge(service, recipe, origins)
            manifest = read_manifest(folder_of(service.workspace.home.snapshots, snapshot))
            live = service.workspace.releases.promote(bundle, force=True, reason=MEASURED)
            service.workspace.releases.wait_until_served(live)
            now = answers_of_live(service, prompts["unseen"], greedy)
            figures = {
                "round": number,
                "wish": name,
                **comparison(wish, given.rank(wish), base, now),
                "gate": {"verdict": gate.verdict, "reason": gate.reason},
                "perplexity": _perplexities(service, bundle),
                "pairs": manifest["counts"]["train"]["pairs"],
                "older_left_out": "since_event" in manifest,
                "feedback": asdict(counts),
            }
            say("\n".join([f"round {number}, wish {name}:", *comparison_lines("unseen", figures)]))
            done.append(figures)
    finally:
        service.close()
    return {
        "evidence": evidence,
        "recipe": recipe_changes(recipe),
        "rounds": done,
        **clock.cost(),
        "home": str(home),
    }


def read_questions() -> dict[str, list[str]]:
    """Read the questions that get feedback, and the unseen ones."""
    return dict(shipped_yaml("app.demo", "prompts.yaml"))


def prompts_of_file(file: Path, count: int) -> list[str]:
    """The first questions of one line in a file that `burnish feedback import` reads."""
    turns = ImportedTurns()
    import_file(turns, file)
    questions = [turn.prompt[0].content for turn in turns.all if len(turn.prompt) == 1]
    return [question for question in questions if "\n" not in question.strip()][:count]


def _perplexities(service: Service, bundle: str) -> dict[str, float]:
    """Perplexity on fixed passages of other text, of the base and of a bundle."""
    with service.slots.hold(bundle):
        passages = list(score_passages(service.engine, adapters_of(bundle, None)))
    return {
        "base": round(perplexity(passages, "base"), 3),
        "release": round(perplexity(passages, "candidate"), 3),
    }


def start_in_new_home(settings: Settings) -> tuple[Service, Path]:
    """Start the service of a demo in a home of its own."""
    home = Home(settings.home).demos / time.strftime("%Y%m%d-%H%M%S")
    # Nobody is there to compare alternatives of what the user disliked
    own = {"home": home, "alternatives": 0}
    service = Service(Workspace(settings.model_copy(update=own)))
    service.start()
    return service, home
