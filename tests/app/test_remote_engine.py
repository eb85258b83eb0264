"""Chat, API and releases over the engine whose tokens vLLM makes, here a double of it."""

from __future__ import annotations

import httpx

from app.service import Service
from app.settings import Settings
from app.workspace import Workspace
from engine.models.catalogue import BaseModel
from engine.prompts.load import load_renderer
from tests.app.conftest import BROWSER, api_alone, listening
from tests.app.web.test_chat_api import ask
from tests.helpers import make_bundle
from tests.support.vllm_double import running


def test_chat_api_and_promotion(settings: Settings, tiny_base: BaseModel) -> None:
    with running(tiny_base.digest) as (vllm,):
        vllm.ids = list(load_renderer(tiny_base.folder).completion("The sea."))
        remote = {"engine": "remote", "remote_urls": (vllm.url,)}
        service = Service(Workspace(settings.model_copy(update=remote)))
        service.start()
        workspace = service.workspace
        bundle = make_bundle(workspace.home.bundles, tiny_base)
        workspace.registry.add(bundle, {"verdict": "better"})
        live = workspace.releases.promote(bundle)
        assert workspace.releases.wait_until_served(live) == 1
        assert list(vllm.adapters) == [bundle]
        with (
            listening(service, api_alone(service)) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            client.get("/", headers=BROWSER)
            answer = ask(client, "What is wide?").ended["turn"]["answer"]
            assert (answer["status"], answer["release"]) == ("done", bundle[7:19])
            body = {"messages": [{"role": "user", "content": "What is wide?"}], "model": "base"}
            (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
            assert choice["message"]["content"] == "The sea."
            assert [asked["model"] for asked in vllm.bodies[-2:]] == [bundle, tiny_base.digest]
            refused = client.post("/v1/chat/completions", json={**body, "logprobs": True})
            assert refused.status_code == 400
            assert "not served by a remote engine" in refused.json()["error"]["message"]
        service.close()
