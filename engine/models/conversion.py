"""The conversion of GGUF files to Hugging Face folders: done once, verified at each start.

Knows where conversions are stored and how they are verified. Settings and tensors of architectures
that we decode ourselves come from our own reader, those of others from transformers.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelUnavailable, UnknownId
from engine.file_digests import FileDigests
from engine.file_lock import file_lock
from engine.storage import (
    DIGEST,
    folder_of,
    publish,
    read_manifest,
    remove_folder,
    sweep,
    verify,
    write_atomically,
)

if TYPE_CHECKING:
    from engine.models.gguf_metadata import GgufSettings

# Raise the number when the contents of conversions change, so that older ones are replaced
CONVERSION_FORMAT = "burnish-model/3"
TOKENIZER_HINTS = ("tokenizer_config.json", "tokenizer.json", "config.json")

log = logging.getLogger(__name__)


def converted(gguf: Path, cache: Path) -> Path:
    """The folder in `cache` that holds the model of a GGUF file; converts it if there is none.

    A conversion whose files differ from its manifest is replaced. Raises `ModelUnavailable` for a
    file with a setting or a tensor that would be left out; nothing is written then.
    """
    digest_of = FileDigests(cache / "digests")
    with _locked(cache):
        for folder in (cache, cache / "converted", cache / "digests"):
            sweep(folder)
        source_digest = digest_of(gguf)
        index = cache / "converted" / f"{source_digest[7:]}.json"
        if (digest := _converted_before(index, cache)) is not None:
            problems = verify(cache, digest, digest_of)
            if not problems:
                return folder_of(cache, digest)
            log.warning(
                "the converted copy of %s was damaged (%s); it is converted anew",
                gguf.name,
                "; ".join(problems),
            )
            remove_folder(folder_of(cache, digest))
        digest = publish(cache, lambda folder: _convert(gguf, source_digest, folder))
        write_atomically(index, json.dumps({"folder": digest[7:]}).encode())
        return folder_of(cache, digest)


def _converted_before(index: Path, cache: Path) -> str | None:
    """The digest of an earlier conversion; None if there is none of this format."""
    try:
        digest = f"sha256:{json.loads(index.read_text('utf-8'))['folder']}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    folder = cache / digest[7:]
    if not DIGEST.fullmatch(digest) or not folder.is_dir():
        return None
    try:
        return digest if read_manifest(folder).get("format") == CONVERSION_FORMAT else None
    except UnknownId:
        return digest  # damaged, as the caller will find


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """A lock against conversions by other processes; a read-only cache needs none."""
    with ExitStack() as held:
        with suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            lock = file_lock(cache / ".lock", lambda: "it is converted", patience_seconds=math.inf)
            held.enter_context(lock)
        yield


def _convert(gguf: Path, source_digest: str, folder: Path) -> dict[str, Any]:
    """Dequantize a GGUF checkpoint to bf16 safetensors with its tokenizer and chat template."""
    from transformers.utils import logging as transformers_logging

    from engine.models.gguf import gguf_settings
    from engine.models.memory import require_memory_to_convert

    transformers_logging.disable_progress_bar()
    settings = gguf_settings(gguf)
    require_memory_to_convert(settings.weights)
    model = _our_model(gguf, settings) if settings.ours else _other_model(gguf, settings)
    if settings.end_ids and settings.end_ids != (model.generation_config.eos_token_id,):
        model.generation_config.eos_token_id = list(settings.end_ids)
    model.save_pretrained(folder)
    _tokenizer(gguf, settings).save_pretrained(folder)
    return {"format": CONVERSION_FORMAT, "source": gguf.name, "source_digest": source_digest}


def _tokenizer(gguf: Path, settings: GgufSettings) -> Any:
    """The tokenizer in the file, as transformers reads it.

    AutoTokenizer parses the whole vocabulary a second time, with a reader that takes seconds, to
    learn the model's type. It is told the type where that alone decides the tokenizer's class: no
    file beside the GGUF file names one, and it is not Mistral's, which has two.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    model_type = settings.config.get("model_type")
    known = TOKENIZER_MAPPING_NAMES.get(model_type) if settings.ours else None
    decided = known not in (None, "MistralCommonBackend") and not any(
        gguf.with_name(name).exists() for name in TOKENIZER_HINTS
    )
    return AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, **({"tokenizer_type": model_type} if decided else {})
    )


def _our_model(gguf: Path, settings: GgufSettings) -> Any:
    """The model (of transformers) of an architecture whose tensors we read ourselves.

    Raises `ModelUnavailable` where a tensor is missing or has no place in it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from engine.models.gguf import GgufCheckpoint

    config = AutoConfig.for_model(**settings.config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    checkpoint = GgufCheckpoint(gguf, {})
    tensors = {name: checkpoint.tensor(name).bfloat16() for name in sorted(checkpoint.names)}
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:  # a shape that the settings do not give
        raise ModelUnavailable(f"cannot use {gguf}: {error}") from error
    model.tie_weights()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    problems = [f"it lacks the tensor {name}" for name in sorted(set(missing) - tied)]
    problems += [f"there is no place for its tensor {name}" for name in sorted(unexpected)]
    if problems:
        raise ModelUnavailable(f"cannot use {gguf}: " + "; ".join(problems[:10]))
    return model


def _other_model(gguf: Path, settings: GgufSettings) -> Any:
    """The model as transformers reads the file, and with the settings that it does not read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    from engine.models.gguf_metadata import disagreements

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    unknown = [name for name in settings.config if not hasattr(config, name)]
    if unknown:
        raise ModelUnavailable(f"cannot use {gguf}: transformers does not read {unknown[0]}")
    for name, value in settings.config.items():
        setattr(config, name, value)
    if problems := disagreements(settings, config):
        raise ModelUnavailable(f"cannot use {gguf}: " + "; ".join(problems))
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        config=config,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
    )
    # save_pretrained refuses a model that still says it is quantized; its tensors are dense now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    return model
