"""What Open WebUI asks for itself is answered and never stored; what a person asks is.

The requests are as Open WebUI 0.12 sends them to an OpenAI-compatible server, with its prompts' own
marks and shorter instructions. `test_open_webui_server.py` asks Open WebUI itself.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.conftest import Played

HISTORY = "<chat_history>\nUSER: How tall is an oak?\nASSISTANT: Thirty metres.\n</chat_history>"
TASK_PROMPTS = {
    "title_generation": f"""### Task:
Generate a concise title.
### Guidelines:
- Write it in the chat's language.
### Output:
JSON format: {{ "title": "your concise title here" }}
### Chat History:
{HISTORY}""",
    "tags_generation": f"""### Task:
Generate 1-3 broad tags.

### Output:
JSON format: {{ "tags": ["tag1", "tag2"] }}

### Chat History:
{HISTORY}""",
    "follow_up_generation": f"""### Task:
Suggest follow-up questions.
### Output:
JSON format: {{ "follow_ups": ["Question 1?"] }}
### Chat History:
{HISTORY}""",
    "autocomplete_generation": f"""### Task:
Continue the text in `<text>`.

### **Examples**:
#### Example 1:
<type>General</type>
<text>The sun was setting</text>

### Context:
{HISTORY}
<type>General</type>
<text>And how old does an oak</text>
#### Output:
""",
    "query_generation": f"""### Task:
Say whether search queries are needed.

### Guidelines:
- Today's date is: 2026-11-30.

### Output:
{{
  "queries": ["query1", "query2"]
}}

### Chat History:
{HISTORY}
""",
    "image_prompt_generation": f"""### Task:
Generate a detailed prompt for a picture.

### Output:
{{
    "prompt": "Your detailed prompt here."
}}

### Chat History:
{HISTORY}""",
}
WITH_DOCUMENTS = (
    "### Task:\nRespond to the user query using the provided context.\n\n<context>\n"
    '<source id="1" name="oaks.md">An oak grows to thirty metres.</source>\n</context>\n\n'
    "How tall is an oak?"
)


def sent(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "live", "messages": [{"role": "user", "content": prompt}], **more}


def ask(played: Played, body: dict[str, Any], **headers: str) -> httpx.Response:
    url = f"{played.url}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, timeout=60)


def stored(played: Played) -> tuple[int, int]:
    counts = played.service.workspace.store.counts()
    return counts["turns"], counts["answers"]


@pytest.mark.parametrize("kind", TASK_PROMPTS)
@pytest.mark.parametrize("header", [True, False], ids=["with the header", "without"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "at once"])
def test_no_task_of_the_page_is_a_turn(
    api_stage: Played, kind: str, header: bool, stream: bool
) -> None:
    api_stage.engine.says = '{ "title": "🌳 Oaks" }'
    headers = {"X-OpenWebUI-Task": kind} if header else {}
    before = stored(api_stage)
    body = sent(TASK_PROMPTS[kind], stream=stream, max_completion_tokens=1000)
    answered = ask(api_stage, body, **headers)
    assert answered.status_code == 200
    assert "Oaks" in answered.text
    assert api_stage.engine.requests[-1].messages[-1].content == TASK_PROMPTS[kind]
    assert stored(api_stage) == before


def test_the_header_names_a_task_whose_prompt_the_administrator_changed(api_stage: Played) -> None:
    before = stored(api_stage)
    changed = sent("A title, please, for: How tall is an oak?")
    assert ask(api_stage, changed, **{"X-OpenWebUI-Task": "title_generation"}).status_code == 200
    assert stored(api_stage) == before


@pytest.mark.parametrize("headers", [{"X-OpenWebUI-Task": ""}, {}], ids=["with", "without"])
def test_a_persons_question_is_a_turn_also_with_documents(
    api_stage: Played, headers: dict[str, str]
) -> None:
    turns, answers = stored(api_stage)
    for question in ("How tall is an oak?", WITH_DOCUMENTS):
        assert ask(api_stage, sent(question, stream=True), **headers).status_code == 200
    assert stored(api_stage) == (turns + 2, answers + 2)
