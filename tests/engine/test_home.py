"""The names in a home folder are an on-disk format: homes made before must open as before."""

from __future__ import annotations

from pathlib import Path

from engine.home import Home


def test_the_names_are_those_of_every_home_so_far() -> None:
    names = {
        name: str(getattr(Home(Path("/home")), name))
        for name, value in vars(Home).items()
        if isinstance(value, property) and name != "artefacts"
    }
    assert names == {
        "database": "/home/burnish.db",
        "settings": "/home/settings.toml",
        "examples": "/home/examples.yaml",
        "prompts": "/home/prompts.yaml",
        "session_key": "/home/session.key",
        "server_lock": "/home/server.lock",
        "forgetting_lock": "/home/forgetting.lock",
        "snapshots": "/home/snapshots",
        "bundles": "/home/bundles",
        "evaluations": "/home/evaluations",
        "rewards": "/home/rewards",
        "ai_labels": "/home/ai_labels",
        "jobs": "/home/jobs",
        "references": "/home/references",
        "imports": "/home/imports",
        "uploads": "/home/uploads",
        "documents": "/home/documents",
        "open_webui": "/home/open-webui.json",
        "backup": "/home/backup",
        "demos": "/home/demo",
    }


def test_artefacts_are_the_content_addressed_folders() -> None:
    folders = {path.name for path in Home(Path()).artefacts}
    assert folders == {"snapshots", "bundles", "evaluations", "rewards", "ai_labels"}
