"""The README.md of an export: a model card in the form that the Hugging Face hub reads.

It says what the weights are, what data they were trained on (counts alone), how they were judged,
under which licence the base model is, and what nobody here knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.export.facts import ReleaseFacts
from deploy.export.verified import VerifiedRelease

CARD = "README.md"
CARD_LIBRARIES = {"peft": "peft", "merged": "transformers", "chatglm": "transformers"}
USE = {
    "peft": "Load it with `peft.AutoPeftModelForCausalLM.from_pretrained`, or serve it with vLLM's"
    " `--enable-lora --lora-modules NAME=FOLDER`.",
    "merged": "Load it with `transformers.AutoModelForCausalLM.from_pretrained`.",
    "gguf": "Run it with llama.cpp: `llama-server -m FILE`.",
    "gguf-lora": "Run it with llama.cpp beside a GGUF file of the base model:"
    " `llama-server -m BASE --lora FILE`.",
    "ollama": "Run `ollama create NAME -f Modelfile` in this folder, then `ollama run NAME`.",
    "chatglm": "It has the published layout of the ChatGLM family; `adapter` holds the adapter"
    " alone, in peft's format.",
}
SPLIT_TITLES = {"train": "trained on", "heldout": "held out", "gold": "gold, held out"}
EXAMPLE_TITLES = {
    "pairs": "pairs",
    "unpaired": "lone judgements",
    "demonstrations": "demonstrations",
}
ACCURACIES = {
    "candidate_accuracy": "this release ranks held-out pairs rightly",
    "incumbent_accuracy": "the release before it, or the base model",
    "longer_wins_accuracy": "the rule that the longer answer wins",
}


def write_model_card(
    folder: Path,
    release: VerifiedRelease,
    facts: ReleaseFacts,
    export_format: str,
    quantization: str,
) -> None:
    """Write the card into the folder of an export; a README.md that it copied gives way."""
    text = "\n".join(
        [
            *_front_matter(release, export_format),
            *_body(release, facts, export_format, quantization),
        ]
    )
    (folder / CARD).write_text(text + "\n", "utf-8")


def _front_matter(release: VerifiedRelease, export_format: str) -> Iterator[str]:
    entries: dict[str, Any] = {"pipeline_tag": "text-generation", "tags": ["burnish"]}
    if release.preset is not None:
        entries["license"] = release.preset.licence
        entries["base_model"] = release.preset.hub_id
    if export_format in CARD_LIBRARIES:
        entries["library_name"] = CARD_LIBRARIES[export_format]
    yield f"---\n{yaml.safe_dump(entries, sort_keys=True)}---\n"


def _body(
    release: VerifiedRelease, facts: ReleaseFacts, export_format: str, quantization: str
) -> Iterator[str]:
    what = {
        "base model": f"The base model {release.base_name}, unchanged.",
        "whole model": f"{release.base_name}, all of its weights trained on people's feedback.",
    }.get(release.kind, f"{release.base_name} with a {release.kind} adapter of people's feedback.")
    name = release.base_name.rpartition("/")[2]
    yield f"# {name}" + ("" if release.digest is None else f", release {release.title}")
    yield f"\n{what} Exported by Burnish as `{export_format}`" + (
        f" in {quantization}." if quantization else "."
    )
    yield f"\n{USE[export_format]}\n"
    yield from _identity(release)
    if release.digest is not None:
        yield from _data(release.manifest, facts.snapshot)
        yield from _training(release)
        yield from _evaluation(facts.report)
    yield from _licence(release)


def _identity(release: VerifiedRelease) -> Iterator[str]:
    rows = [("base model", release.base_name), ("its digest", f"`{release.base.digest}`")]
    if release.base.gguf is not None:
        rows.append(("its weights", f"of `{release.base.gguf.name}`, so rounded as in that file"))
    if release.digest is not None:
        rows.append(("release", f"`{release.digest}`"))
    yield from _table(("", ""), rows)


def _data(manifest: Mapping[str, Any], snapshot: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Data\n"
    if manifest.get("origin") == "imported":
        yield "Other software trained this adapter; its data is not known here.\n"
        return
    if snapshot is None:
        yield "The snapshot that it was trained on is no longer there, nor are its counts.\n"
        return
    counts = snapshot["counts"]
    rows = [
        (kind_text, *(str(counts[split][kind]) for split in SPLIT_TITLES))
        for kind, kind_text in EXAMPLE_TITLES.items()
    ]
    yield from _table(("examples", *SPLIT_TITLES.values()), rows)
    sources = ", ".join(f"{name}: {count}" for name, count in snapshot["sources"].items())
    redacted = "were redacted" if snapshot.get("redacted") else "were not redacted"
    yield f"By kind and source: {sources}. Personal data in the texts {redacted}."
    yield f"The examples are not part of this export. Snapshot: `{manifest['snapshot']}`.\n"


def _training(release: VerifiedRelease) -> Iterator[str]:
    recipe, config = release.manifest.get("recipe") or {}, release.config
    rows: list[tuple[str, str]] = []
    if config.get("r"):
        rows.append(("rank, alpha", f"{config['r']}, {config['lora_alpha']}"))
        rows.append(("adapted modules", ", ".join(config.get("target_modules") or [])))
    for stage, count in (release.manifest.get("rows") or {}).items():
        settings = {} if _searched(release.manifest, stage) else recipe.get(stage)
        if count and isinstance(settings, Mapping):
            given = ", ".join(
                f"{key} {settings[key]}" for key in ("epochs", "learning_rate") if key in settings
            )
            rows.append((f"method {stage}", f"{count} rows" + (f", {given}" if given else "")))
    versions = release.manifest.get("versions") or {}
    if versions:
        rows.append(("libraries", ", ".join(f"{name} {v}" for name, v in versions.items())))
    if rows:
        yield "## Training\n"
        yield from _table(("", ""), rows)


def _searched(manifest: Mapping[str, Any], stage: str) -> bool:
    """Return whether a search found how hard a stage trains, which the recipe then does not say."""
    return stage == "joint" and bool((manifest.get("search") or {}).get("outcome"))


def _evaluation(report: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Evaluation\n"
    if report is None or "reason" not in report:
        yield "The gate has not judged it.\n"
        return
    yield f"The gate's verdict: **{report['verdict']}**. {report['reason']}.\n"
    if report.get("pairs"):
        rows = [(text, f"{report[key]:.2f}") for key, text in ACCURACIES.items() if key in report]
        gain = report["gain"]
        rows.append(("gain", f"{gain['estimate']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"))
        of = f"accuracy on {report['pairs']} pairs of {report['conversations']} conversations"
        yield from _table((of, ""), rows)
    guards = report.get("guards") or []
    if guards:
        found = [
            (
                guard["name"],
                f"{guard['harm']['estimate']:+.2f}",
                "yes" if guard["refused"] else "no",
            )
            for guard in guards
        ]
        yield from _table(("guard", "harm", "refused"), found)


def _licence(release: VerifiedRelease) -> Iterator[str]:
    yield "## Licence\n"
    if release.preset is not None:
        yield (
            f"The base model is published as {release.preset.hub_id} under"
            f" `{release.preset.licence}`, by the list that Burnish comes with; read the licence"
            " itself, which may ask for a notice, a name or a purpose."
        )
    else:
        yield "The licence of the base model is not known here; ask whoever gave it."
    yield (
        "Not known: whether those whose feedback is in these weights agree to their being passed"
        " on, what the base model was trained on, and whether the weights repeat parts of either.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
