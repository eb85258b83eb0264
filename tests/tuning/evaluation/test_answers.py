"""The fixed prompts, and how answers to them are measured."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from engine.prompts.modes import COT_INSTRUCTION
from engine.request import Finished, FinishReason
from tests.support.judges import ScriptedJudge
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.evaluation.answers import (
    Answered,
    EvaluationPrompt,
    Opinions,
    answer_prompts,
    ask_judge,
    evaluation_messages,
    load_prompts,
    measure_answers,
)
from tuning.evaluation.roles import ModelRole, adapters_of
from tuning.evaluation.text_metrics import AnswerFormat, language


def answered(prompt: EvaluationPrompt, candidate: str, incumbent: str = "Well.") -> Answered:
    texts: dict[ModelRole, str] = {
        "candidate": candidate,
        "incumbent": incumbent,
        "base": incumbent,
    }
    return Answered(prompt, {role: finished(text) for role, text in texts.items()})


def finished(text: str, reason: FinishReason = "stop") -> Finished:
    return Finished(reason, text, 1, len(text.split()) + 1)


def test_there_are_enough_prompts_for_every_guard() -> None:
    prompts = load_prompts()
    assert len({prompt.id for prompt in prompts}) == len(prompts) == 24
    assert [prompt.language for prompt in prompts].count("zh") == 8
    assert sum(prompt.asks is not None for prompt in prompts) >= 8
    assert {prompt.asks for prompt in prompts} == {None, *get_args(AnswerFormat)}
    assert all(language(prompt.text) == prompt.language for prompt in prompts)


def test_a_prompt_that_asks_for_a_thought_is_shown_in_chain_of_thought_mode() -> None:
    for prompt in load_prompts():
        assert (prompt.mode == "few-shot-cot") is (prompt.asks == "thought")
        shown = evaluation_messages(prompt)
        assert (COT_INSTRUCTION in shown[-1].content) is (prompt.mode == "few-shot-cot")
        assert shown[-1].content.startswith(prompt.text)
        assert prompt.max_new_tokens == (160 if prompt.mode == "few-shot-cot" else 96)


def test_everybody_answers_every_prompt_as_itself() -> None:
    engine = ScriptedEngine({None: Voice(sensible), "new": Voice(lambda prompt: "New.")})
    found = answer_prompts(engine, adapters_of("new", None), load_prompts())
    assert [each.prompt for each in found] == load_prompts()
    assert {each.answers["candidate"].text for each in found} == {"New."}
    assert (
        found[0].answers["incumbent"] == found[0].answers["base"] != found[0].answers["candidate"]
    )


@pytest.mark.parametrize(
    ("prompt", "text", "kept"),
    [
        (EvaluationPrompt("p", "zh", "海?"), "海很宽。", True),
        (EvaluationPrompt("p", "zh", "海?"), "The sea is wide.", False),
        (EvaluationPrompt("p", "en", "Sea?"), "海很宽。", False),
        (
            EvaluationPrompt("p", "zh", "海?"),
            "",
            True,
        ),  # it is empty: one fault is not counted twice
        (EvaluationPrompt("p", "zh", "几?"), "42", True),
    ],
)
def test_the_language_of_the_prompt_is_to_be_kept(
    prompt: EvaluationPrompt, text: str, kept: bool
) -> None:
    assert measure_answers(answered(prompt, text)).measures["candidate"].language_kept is kept


def test_an_answer_is_measured_by_its_own_text() -> None:
    prompt = EvaluationPrompt("p", "en", "List them.", asks="list")
    measured = measure_answers(answered(prompt, "- one\n- two", "One and two."))
    new, old = measured.measures["candidate"], measured.measures["incumbent"]
    assert (measured.prompt_id, measured.asks) == ("p", "list")
    assert (new.tokens, new.finished, new.empty, new.format_kept) == (5, True, False, True)
    assert (old.tokens, old.format_kept) == (4, False)
    assert (
        measure_answers(answered(EvaluationPrompt("p", "en", "?"), "x"))
        .measures["base"]
        .format_kept
        is None
    )


@pytest.mark.parametrize("mode", ["plain", "cot", "few-shot-cot"])
def test_an_answer_is_measured_without_its_thought(mode: str) -> None:
    thought = "<think>\n我也说我也说我也说我也说\n</think>\n\n"
    prompt = EvaluationPrompt("p", "en", "Sea?", mode)
    measured = measure_answers(answered(prompt, f"{thought}It is wide.", thought)).measures
    new, old = measured["candidate"], measured["incumbent"]
    assert (new.language_kept, new.empty, new.repetition) == (True, False, 0.0)
    assert old.empty


def test_what_was_cut_within_its_thought_is_unfinished_and_not_empty() -> None:
    cut = Answered(
        EvaluationPrompt("p", "en", "?"), {"candidate": finished("<think>The sea", "length")}
    )
    measured = measure_answers(cut).measures["candidate"]
    assert (measured.finished, measured.empty) == (False, False)


def test_a_cut_answer_is_not_finished() -> None:
    cut = Answered(EvaluationPrompt("p", "en", "?"), {"candidate": finished("So", "length")})
    assert not measure_answers(cut).measures["candidate"].finished


@pytest.mark.parametrize(
    ("rule", "opinions"),
    [
        (lambda a, b: "A" if a == "New." else "B", Opinions(1, 0, 0)),
        (lambda a, b: "B" if a == "New." else "A", Opinions(0, 0, 1)),
        (lambda a, b: "A", Opinions(0, 1, 0)),  # whatever comes first
        (lambda a, b: "A" if a == "New." else None, Opinions(0, 1, 0)),
    ],
)
def test_a_judges_choice_counts_where_both_orders_agree(rule: Any, opinions: Opinions) -> None:
    prompt = EvaluationPrompt("p", "en", "?")
    for thought in ("", "<think>Hm.</think>"):  # which the judge does not see
        both = answered(prompt, f"{thought}New.", f"{thought}Old.")
        assert ask_judge(ScriptedJudge(rule), [both]) == opinions
