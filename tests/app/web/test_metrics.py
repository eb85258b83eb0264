"""`/metrics`: what is documented is there, and no label tells who people are or what they wrote."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.service import Service
from app.web.metrics import NAMED_RELEASES, loop_metrics, thumbs_metric
from deploy.rounds.round import LoopEvent, history_of
from feedback_store.view.ratings import ReleaseRatings, count_ratings_by_release
from tests.app.web.completing import Person, complete
from tests.helpers import make_bundle
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
DOCUMENTED = re.compile(r"^\| `(burnish_\w+)` \| (\w+) \|", re.M)


@pytest.fixture
def url(api_url: str) -> str:
    """No test here looks at a page."""
    return api_url


def read(client: httpx.Client) -> dict[str, Metric]:
    """The metrics by the names of their families, without the times at which series began."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {each.name: each for each in families if not each.name.endswith("_created")}


def values(metric: Metric, label: str) -> dict[str, float]:
    return {sample.labels[label]: sample.value for sample in metric.samples}


def test_the_table_and_the_registry_agree(person: Person) -> None:
    table = (ROOT / "docs" / "operations.md").read_text("utf-8")
    served = {
        name + "_total" * (each.type == "counter"): each.type
        for name, each in read(person()).items()
        if name.startswith("burnish_")
    }
    assert dict(DOCUMENTED.findall(table)) == served


def test_an_answer_and_a_vote_are_counted_without_a_word_or_an_id(
    person: Person, service: Service
) -> None:
    client = person()
    answer = complete(client, ignore_eos=True, messages=[{"role": "user", "content": "Kumquat?"}])
    assert client.post(f"/api/answers/{answer['id']}/vote", json={"vote": 1}).is_success
    metrics = read(client)
    assert values(metrics["burnish_answers"], "outcome") == {"done": 1, "stopped": 0, "failed": 0}
    samples = {s.name: s.value for s in metrics["burnish_first_token_seconds"].samples}
    assert samples["burnish_first_token_seconds_count"] == 1
    samples = {s.name: s.value for s in metrics["burnish_queue_seconds"].samples}
    assert samples["burnish_queue_seconds_count"] == 1
    assert [(s.labels, s.value) for s in metrics["burnish_thumbs"].samples] == [
        ({"release": "base", "thumb": "up"}, 1),
        ({"release": "base", "thumb": "down"}, 0),
    ]
    text = client.get("/metrics").text
    assert "umquat" not in text
    assert answer["id"] not in text
    labels = {key for each in metrics.values() for s in each.samples for key in s.labels}
    few = {"outcome", "release", "thumb", "kind", "state", "stage", "error", "result"}
    assert labels - {"le"} <= few


def test_a_refusal_is_counted(person: Person) -> None:
    client = person()
    long = {"messages": [{"role": "user", "content": "sea " * 4_000}]}
    assert client.post("/v1/chat/completions", json=long).status_code == 413
    assert values(read(client)["burnish_answers_refused"], "error") == {
        "Overloaded": 0,  # there from the start, so that its rate is known
        "PromptTooLong": 1,
    }


def test_a_swap_is_timed_and_the_live_release_named(person: Person, service: Service) -> None:
    client, workspace = person(), service.workspace
    bundle = make_bundle(workspace.home.bundles, workspace.base, seed=1)
    workspace.registry.add(bundle, {"verdict": "better"})
    workspace.registry.promote(bundle, workspace.registry.live())
    running = workspace.registry.live()
    wait_until(lambda: [s.generation for s in workspace.registry.servers()] == [running.generation])
    metrics = read(client)
    assert values(metrics["burnish_live_release"], "release") == {bundle[7:19]: 1}
    counted = [s for s in metrics["burnish_swap_seconds"].samples if s.name.endswith("_count")]
    assert [(s.labels["result"], s.value) for s in counted] == [("activated", 1), ("refused", 0)]


def test_releases_that_got_no_thumb_lately_share_a_label() -> None:
    ratings = [ReleaseRatings(f"sha256:{number:02x}{'0' * 62}", 2, 1) for number in range(11)]
    metric = thumbs_metric([*ratings, ReleaseRatings(None, 5, 0)])
    up = {s.labels["release"]: s.value for s in metric.samples if s.labels["thumb"] == "up"}
    assert len(up) == NAMED_RELEASES + 2
    assert (up["base"], up["older"]) == (5, 2 * 3)


def test_current_thumbs_are_counted_by_release(person: Person, service: Service) -> None:
    client = person()
    first, second = complete(client), complete(client)
    for answer, vote in ((first, 1), (first, -1), (second, 1), (second, 0)):
        client.post(f"/api/answers/{answer['id']}/vote", json={"vote": vote})
    counted = count_ratings_by_release(service.workspace.database, service.engine.base_digest)
    assert counted == [ReleaseRatings(None, 0, 1)]  # changed, and taken back


def test_the_rounds_of_the_loop_are_told_by_outcome_and_stage() -> None:
    events = [
        LoopEvent(1, "begun", 0.0, {}),
        LoopEvent(1, "snapshot", 1.0, {"seconds": 0.5}),
        LoopEvent(1, "failed", 2.0, {"stage": "tune", "seconds": 3.0}),
        LoopEvent(1, "tune", 9.0, {"seconds": 700.0}),
        LoopEvent(1, "ended", 9.0, {"outcome": "not promoted", "reason": ""}),
        LoopEvent(1, "report", 9.0, {"seconds": 0.0}),
    ]
    rounds, failures, stages = loop_metrics(history_of(events).rounds)
    assert values(rounds, "outcome")["not promoted"] == 1
    assert sum(values(rounds, "outcome").values()) == 1
    assert [s.value for s in failures.samples] == [1]
    tune = {s.labels.get("le"): s.value for s in stages.samples if s.labels["stage"] == "tune"}
    assert (tune["300.0"], tune["900.0"], tune["+Inf"]) == (0, 1, 1)
