"""The check of a checkpoint's chat template, which is a program, before it is used.

It renders small conversations in a process of its own, with limits on time and memory, inside the
same kind of sandbox that transformers uses. That also shows which conversations it accepts (some
templates refuse a system message, or two messages of one role in a row), whether `enable_thinking`
changes its text, and how it writes calls of tools. The result is cached for each template.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

from engine.errors import ModelUnavailable
from engine.prompts.calls.formats import CallFormat
from engine.prompts.calls.probe import probes, recognised

SECONDS = 1  # of computing; waiting for a busy machine does not count
WAIT_SECONDS = 20  # waiting included
MEMORY_BYTES = 512 << 20
MOST_CHARS = 100_000  # of a rendered conversation that has some 50 characters itself
MOST_TEMPLATE_CHARS = 1_000_000

# Runs in the child, which imports nothing of this project and reads the template from its input.
CHILD = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

def refuse(message):
    raise jinja2.exceptions.TemplateError(message)

environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
)
environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
environment.globals["raise_exception"] = refuse
environment.globals["strftime_now"] = lambda form: form
source = re.sub(r"{{%-?\\s*(end)?generation\\s*-?%}}", "", sys.stdin.read())
template = environment.from_string(source)
def message(role, content):
    return dict(role=role, content=content)

def render(*messages, tools=None, **more):  # None: it refuses them
    try:
        text = template.render(
            messages=list(messages), tools=tools, documents=None, add_generation_prompt=True,
            bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", **more,
        )
    except jinja2.exceptions.SecurityError:
        raise
    except (jinja2.exceptions.TemplateRuntimeError, jinja2.exceptions.TemplateError):
        return None
    if len(text) > {MOST_CHARS}:
        raise SystemExit("it writes a hundred thousand characters for a greeting")
    return text

def takes(*messages):  # whether it renders them, and shows all of their texts
    text = render(*messages)
    return text is not None and all(message["content"] in text for message in messages)

def thinks_unasked(*messages):  # None: it has no switch
    unasked, on, off = render(*messages), *(
        render(*messages, enable_thinking=thinks) for thinks in (True, False)
    )
    return None if on == off else unasked == on

system, user = message("system", "Be kind."), message("user", "Hello")
found = dict(
    takes_system=takes(system, user),
    takes_repeats=takes(user, message("user", "Why?")),
    thinks_unasked=thinks_unasked(user),
)

def uses_tools(probe):  # None: it refuses tools in whatever way
    try:
        return render(*probe["messages"], tools=probe["tools"])
    except jinja2.exceptions.SecurityError:
        raise
    except Exception:
        return None

probes = json.loads({json.dumps(probes())!r})
print(json.dumps([found, {{name: uses_tools(probe) for name, probe in probes.items()}}]))
"""


@dataclass(frozen=True, slots=True)
class TemplateAbilities:
    """The conversations that a chat template renders with all their texts, and its switch."""

    takes_system: bool = True
    takes_repeats: bool = True  # several messages of one role in a row
    # Whether the model thinks first unless `enable_thinking` forbids it; None: there is no switch
    thinks_unasked: bool | None = None
    # How it writes calls of tools; None: it does not, and tools are offered as text
    calls: CallFormat | None = None


def examine_template(template: str) -> TemplateAbilities:
    """Find out the abilities of a template.

    Raises `ModelUnavailable` for one that leaves the sandbox, does not end or fills the memory.
    """
    if len(template) > MOST_TEMPLATE_CHARS:
        raise ModelUnavailable("the chat template is over a million characters long")
    found = _abilities_or_problem(template)
    if isinstance(found, str):
        raise ModelUnavailable(f"the chat template is refused: {found}")
    return found


@lru_cache(maxsize=32)
def _abilities_or_problem(template: str) -> TemplateAbilities | str:
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and the program above
            [sys.executable, "-I", "-c", CHILD],
            input=template,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it does not end within {WAIT_SECONDS} seconds"
    if done.returncode == 0:
        found, with_tools = json.loads(done.stdout)
        return TemplateAbilities(**found, calls=recognised(with_tools))
    if done.returncode < 0:
        return f"it does not end within {SECONDS} s of computing"
    said = done.stderr.strip().splitlines() or ["it failed"]
    return "it fills the memory" if "MemoryError" in said[-1] else said[-1][:300]
