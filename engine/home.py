"""The home: the folder that holds all state of one installation, and the paths in it.

The names are an on-disk format: a home that an earlier version made has the same ones. Knows paths
alone; opens, creates and deletes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The paths in a home folder."""

    root: Path

    # Files

    @property
    def database(self) -> Path:
        """The SQLite file, unless a database URL is configured."""
        return self.root / "burnish.db"

    @property
    def settings(self) -> Path:
        """The operator's settings, TOML."""
        return self.root / "settings.toml"

    @property
    def examples(self) -> Path:
        """The operator's few-shot examples, YAML."""
        return self.root / "examples.yaml"

    @property
    def prompts(self) -> Path:
        """The prompts that the operator shares with everybody, YAML."""
        return self.root / "prompts.yaml"

    @property
    def open_webui(self) -> Path:
        """The state of the synchronisation with an Open WebUI, JSON."""
        return self.root / "open-webui.json"

    @property
    def session_key(self) -> Path:
        """The key that signs session cookies."""
        return self.root / "session.key"

    @property
    def server_lock(self) -> Path:
        """Locked by the running server, whose process id it holds."""
        return self.root / "server.lock"

    @property
    def forgetting_lock(self) -> Path:
        """Locked while an erasure is carried out."""
        return self.root / "forgetting.lock"

    # Folders of immutable artefacts, each in a folder named after its digest (`engine.storage`)

    @property
    def snapshots(self) -> Path:
        """Frozen training sets."""
        return self.root / "snapshots"

    @property
    def bundles(self) -> Path:
        """Trained adapters."""
        return self.root / "bundles"

    @property
    def evaluations(self) -> Path:
        """The evaluations, on which each verdict of the gate rests."""
        return self.root / "evaluations"

    @property
    def rewards(self) -> Path:
        """Reward models."""
        return self.root / "rewards"

    @property
    def ai_labels(self) -> Path:
        """Pairs that an AI judge labelled."""
        return self.root / "ai_labels"

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """All folders of immutable artefacts."""
        return self.snapshots, self.bundles, self.evaluations, self.rewards, self.ai_labels

    # Other folders

    @property
    def jobs(self) -> Path:
        """Tuning jobs, a folder each, with their progress and checkpoints."""
        return self.root / "jobs"

    @property
    def references(self) -> Path:
        """Log-probabilities of reference models; a cache."""
        return self.root / "references"

    @property
    def imports(self) -> Path:
        """Files that are being imported."""
        return self.root / "imports"

    @property
    def uploads(self) -> Path:
        """Files that the chat page received."""
        return self.root / "uploads"

    @property
    def documents(self) -> Path:
        """Documents that questions are answered from, with their indices."""
        return self.root / "documents"

    @property
    def backup(self) -> Path:
        """Files of the backup that is being made, and its lock."""
        return self.root / "backup"

    @property
    def demos(self) -> Path:
        """Homes of `burnish demo`."""
        return self.root / "demo"
