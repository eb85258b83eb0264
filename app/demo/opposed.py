"""Two scripted users with opposite wishes, whom one release cannot please. Read `run_opposed`.

One wants the shorter answer that comes to an end, the other the longer one. Each compares answers
to questions of their own, and likes the ones that they chose. The figures tell whether an alert
names the two, what the gate says of a release that is trained on both, and what each one's own
examples do for that person alone, without training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from app.demo.feedback import FEEDBACK_WAYS, answers_to, give_comparisons
from app.demo.figures import Say, StageClock, comparison, comparison_lines, recipe_changes
from app.demo.run import SEEDS_APART, read_questions, start_in_new_home
from app.demo.scripted_user import WISHES, ScriptedUser, WishName
from app.demo.serving import MEASURED, answers_of_live, tune_and_judge
from app.settings import Settings
from engine.request import SamplingParams

JUDGEMENTS_EACH = 60  # at most: of some questions all answers are alike to a user
OPPOSITES: Sequence[WishName] = ("short", "long")


def run_opposed(settings: Settings, say: Say, *, seed: int = 0) -> dict[str, Any]:
    """Run the loop once on both users' feedback and return the figures.

    Win rates are over the base, by the wish of each user: of the release, and of the base with
    the user's own examples. `seed` is that of the sampled answers and of the recipe.
    """
    clock, most_tokens = StageClock(say), FEEDBACK_WAYS["comparisons"].max_new_tokens
    sampling = SamplingParams(max_new_tokens=most_tokens, seed=SEEDS_APART * seed)
    greedy = replace(sampling, temperature=0.0)
    users = {name: ScriptedUser(WISHES[name], user_id=f"wants-{name}") for name in OPPOSITES}
    with clock.stage("start"):
        service, home = start_in_new_home(settings)
        prompts = read_questions()
    unseen = prompts["unseen"]
    people: dict[str, dict[str, Any]] = {name: {} for name in users}
    try:
        with clock.stage("base answers on unseen prompts"):
            base = answers_of_live(service, unseen, greedy)
        for place, (name, user) in enumerate(users.items()):
            with clock.stage(f"comparisons of the user who wants {name} answers"):
                questions = prompts["feedback"][place :: len(users)]
                counts = give_comparisons(
                    service, user, questions, sampling, most=JUDGEMENTS_EACH, likes_chosen=True
                )
            people[name]["feedback"] = asdict(counts)
        alerts = sorted({alert["kind"] for alert in service.workspace.alerts()})
        for name, user in users.items():
            with clock.stage(f"answers with the own examples of {name}"):
                own = answers_to(service, user, unseen, greedy)
            people[name]["own_examples"] = comparison(user.wish, user.wish.rank, base, own)
        with clock.stage("snapshot, tune, gate"):
            recipe, origins = service.workspace.recipe()
            _, bundle, gate = tune_and_judge(service, replace(recipe, seed=seed), origins)
        with clock.stage("the release's answers"):
            live = service.workspace.releases.promote(bundle, force=True, reason=MEASURED)
            service.workspace.releases.wait_until_served(live)
            after = answers_of_live(service, unseen, greedy)
        for name, user in users.items():
            people[name]["release"] = comparison(user.wish, user.wish.rank, base, after)
    finally:
        service.close()
    figures = {
        "evidence": "comparisons",
        "opposed": people,
        "seed": seed,
        "recipe": recipe_changes(recipe),
        "alerts": alerts,
        "gate": {"verdict": gate.verdict, "reason": gate.reason, "gain": asdict(gate.gain)},
        **clock.cost(),
        "home": str(home),
    }
    say(_summary(figures))
    return figures


def _summary(figures: dict[str, Any]) -> str:
    """Describe the figures in lines for a terminal."""
    lines = [
        f"alerts: {', '.join(figures['alerts']) or 'none'}",
        f"gate: {figures['gate']['reason']}",
    ]
    for name, found in figures["opposed"].items():
        for what in ("own_examples", "release"):
            lines += comparison_lines(f"{name}: {what.replace('_', ' ')}", found[what])
    return "\n".join(lines)
