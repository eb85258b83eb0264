"""Which examples are like a question: tokens, scores, and where the threshold lies."""

from __future__ import annotations

import math
from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate

from engine.prompts.examples import Example
from engine.prompts.similarity import SimilarExamples, most_similar
from engine.prompts.terms import tokens

# An example's question and one that it should be found for
SIMILAR = [
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("How do I bake sourdough bread?", "How long do I bake a loaf of bread?"),
    ("Write a poem about the sea.", "Write a short poem about a storm at sea."),
    ("Explain photosynthesis to a child.", "What is photosynthesis?"),
    ("How do I sort a list in Python?", "How do I reverse a list in Python?"),
    ("What does a red traffic light mean?", "What does a yellow traffic light mean?"),
    ("Suggest a name for my cat.", "Suggest a name for a dog."),
    ("How heavy is a blue whale?", "How heavy is an elephant?"),
    ("When did the Second World War end?", "When did the First World War begin?"),
    ("Give me a recipe for pancakes.", "I need a pancake recipe without eggs"),
    ("How far is the Moon?", "How far away is the Sun from the Moon?"),
    ("Translate 'good morning' into German.", "Translate 'thank you' into German."),
    ("Why is the sky blue?", "Why is the sky red at sunset?"),
    ("法国的首都是哪里？", "西班牙的首都是哪里？"),
    ("怎么做红烧肉？", "红烧肉要炖多久？"),
    ("请写一首关于秋天的诗。", "写一首关于春天的诗"),
    ("什么是光合作用？", "请解释一下光合作用的过程"),
    ("如何学习英语单词？", "学习英语语法有什么好方法？"),
    ("Python怎么读取文件？", "用Python读取CSV文件"),
    ("北京有哪些好玩的地方？", "北京适合带孩子玩的地方"),
    ("フランスの首都はどこですか。", "スペインの首都はどこですか。"),
    ("프랑스의 수도는 어디입니까?", "스페인의 수도는 어디입니까?"),
]
# Asked in the same way about something else
UNRELATED = [
    ("What is the capital of France?", "What is the best way to cook rice?"),
    ("How do I bake bread?", "How do I change a tyre?"),
    ("Write a poem about the sea.", "Write an email to my boss about a day off."),
    ("Explain photosynthesis.", "Explain inflation."),
    ("Can you help me with my homework?", "Can you help me to choose a bicycle?"),
    ("Tell me a joke.", "Tell me about the history of Rome."),
    ("What is a good book about whales?", "What is a good restaurant in Lyon?"),
    ("How many days does February have?", "How many legs does a spider have?"),
    ("Who wrote Hamlet?", "Who painted the Mona Lisa?"),
    ("Is it safe to eat raw eggs?", "Is it hard to learn the piano?"),
    ("Summarise Faust in one sentence.", "Correct this sentence: he go home."),
    ("法国的首都是哪里？", "附近最好的餐馆是哪里？"),
    ("怎么做红烧肉？", "怎么换轮胎？"),
    ("什么是光合作用？", "什么是通货膨胀？"),
    ("请写一首关于秋天的诗。", "请写一封请假的邮件。"),
    ("如何学习英语单词？", "如何选择一辆自行车？"),
    ("感冒了应该吃什么药？", "周末应该去哪里玩？"),
    ("我的猫为什么一直叫？", "为什么天空是蓝色的？"),
    ("フランスの首都はどこですか。", "おいしいラーメンの作り方を教えてください。"),
    ("프랑스의 수도는 어디입니까?", "가장 좋은 식당은 어디입니까?"),
    ("What is the capital of France?", "法国的面积是多少？"),
]


def selector(*questions: str, **more: Any) -> SimilarExamples:
    return SimilarExamples(({"question": q, "answer": q.upper()} for q in questions), **more)


def found(questions: list[str], question: str) -> list[str]:
    return [e["question"] for e in selector(*questions).select_examples({"question": question})]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the Capital of FRANCE?", ["capital", "france"]),
        ("It's my cat's, don't you see?", ["cat", "see"]),
        ("Ｃａｆé recipes, glass", ["café", "recipe", "glass"]),  # full width; plural; no plural
        ("法国的首都是哪里？", ["法国", "首都"]),
        ("Python怎么读取CSV文件", ["python", "读取", "csv", "文件"]),
        ("猫", ["猫"]),
        ("光合作用", ["光合", "合作", "作用"]),
        ("フランスの首都はどこですか。", ["フランス", "首都"]),
        ("And now?", []),
        ("为什么？", []),
        ("👩‍👩‍👧‍👦 … ??", []),
        ("", []),
    ],
)
def test_tokens_are_what_a_question_is_about(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(("kept", "asked"), SIMILAR)
def test_a_similar_question_finds_its_example_alone_and_among_many(kept: str, asked: str) -> None:
    assert found([kept], asked) == [kept]
    others = [question for question, _ in SIMILAR + UNRELATED if question != kept]
    assert kept in found([*others, kept], asked)


@pytest.mark.parametrize(("kept", "asked"), UNRELATED)
def test_an_unrelated_question_finds_none(kept: str, asked: str) -> None:
    assert found([kept], asked) == []


@pytest.mark.parametrize("count", [1, 3, 200])
def test_the_same_question_scores_one_and_one_without_a_common_word_nothing(count: int) -> None:
    questions = [f"How tall is tree number {number}?" for number in range(count)]
    asked = selector(*questions)
    assert asked.scores(questions[0])[0] == pytest.approx(1, abs=1e-3)
    assert asked.scores("Who painted the Mona Lisa?") == [0] * count
    assert asked.scores("Why?") == [0] * count


def test_a_score_is_what_the_formula_gives() -> None:
    # One example, "tall oak", beside 100 documents of two other words: every length is the mean,
    # so that each common word weighs its idf / (1 + 1.5), and the question's own as much
    shared, unknown = math.log(1 + (101 - 1 + 0.5) / 1.5), math.log(1 + (101 + 0.5) / 0.5)
    expected = shared / (shared + unknown)
    assert selector("tall oak").scores("tall elm") == [pytest.approx(expected, abs=1e-4)]


def test_a_rare_word_counts_more_than_one_that_all_examples_have() -> None:
    python = [f"python topic{number}" for number in range(300)]
    scores = selector(*python, "sourdough").scores("python sourdough")
    assert scores[-1] > 0.5 > 0.25 > scores[0] > 0


def test_the_best_come_first_and_of_equals_the_earlier() -> None:
    questions = ["tall oak", "tall oak tree", "tall elm tree", "tall oak", "bread", "old oak"]
    assert found(questions, "tall oak") == ["tall oak", "tall oak", "tall oak tree"]
    assert selector(*questions, k=2).ranked("tall oak")[:2] == [0, 3]


def test_no_examples_and_braces_are_fine() -> None:
    assert found([], "anything") == []
    assert found(["{oak} {{tree}}"], "{oak}") == ["{oak} {{tree}}"]


def test_langchain_can_use_it_and_add_to_it() -> None:
    examples = selector("How tall is an oak?", "A recipe for bread?")
    examples.add_example({"question": "How tall is an elm?", "answer": "40 m"})
    shown = FewShotChatMessagePromptTemplate(
        example_prompt=ChatPromptTemplate.from_messages([("human", "{question}")]),
        example_selector=examples,
        input_variables=["question"],
    )
    messages = shown.format_messages(question="How tall is that elm?")
    assert [m.content for m in messages] == ["How tall is an elm?", "How tall is an oak?"]


def test_of_the_operators_examples_the_similar_ones_are_shown_in_the_files_order() -> None:
    pool = tuple(
        Example(question, "", "")
        for question in ("Bread?", "An oak tree?", "A novel?", "An elm tree?", "A river?")
    )
    shown = [e.question for e in most_similar(pool, "How tall is an elm tree?")]
    assert shown == ["Bread?", "An oak tree?", "An elm tree?"]
    assert most_similar(pool, "Why?") == pool[:3]
    assert most_similar(pool[:3], "An elm tree?") == pool[:3]
