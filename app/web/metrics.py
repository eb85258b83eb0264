"""`/metrics`: a server's own measurements, and what its store and engine tell at each look.

What the store tells is the same from each server of one store.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.service import Service
from deploy.rounds.round import STAGES, Round
from engine.storage import short_id
from feedback_store.view.ratings import ReleaseRatings, count_ratings_by_release

BASE_MODEL, OLDER = "base", "older"  # labels beside the beginnings of releases' ids
NAMED_RELEASES = 8  # with a label of their own: those that got thumbs last
STAGE_BUCKETS = (1, 10, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400)
ROUND_OUTCOMES = ("promoted", "not promoted", "unchanged", "erased", "cancelled", "failed")


def metrics_router(service: Service) -> APIRouter:
    """Return the route, on one running service."""
    router = APIRouter()
    told = CollectorRegistry()
    told.register(ServiceCollector(service))

    @router.get("/metrics", response_class=PlainTextResponse)
    def prometheus() -> PlainTextResponse:
        text = generate_latest(service.metrics.registry) + generate_latest(told)
        return PlainTextResponse(text, media_type=CONTENT_TYPE_LATEST)

    return router


class ServiceCollector(Collector):
    """Reads the engine and the store anew at each look."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the registry would read the store to learn the names alone."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        workspace, engine = self._service.workspace, self._service.engine
        live = workspace.registry.live()
        yield _gauge("burnish_engine_up", "Whether the engine can make tokens", engine.alive)
        yield _gauge("burnish_active_streams", "Answers running or waiting", engine.active_streams)
        yield _gauge("burnish_live_generation", "Changes of the live release", live.generation)
        yield _labelled(
            "burnish_live_release", "The live release", "release", {release_label(live.bundle): 1}
        )
        yield _gauge(
            "burnish_home_free_bytes",
            "Free space of the disk with the home",
            shutil.disk_usage(workspace.home.root).free,
        )
        yield _labelled(
            "burnish_feedback", "Stored records by kind", "kind", workspace.store.counts()
        )
        yield _gauge(
            "burnish_alternatives", "Alternatives of bad answers", workspace.alternatives.count()
        )
        yield _labelled(
            "burnish_alternatives_compared",
            "Comparisons of alternatives by state",
            "state",
            workspace.comparison_queue.counts(),
        )
        yield thumbs_metric(
            count_ratings_by_release(workspace.database, self._service.engine.base_digest)
        )
        yield from loop_metrics(workspace.loop.rounds())


def release_label(bundle: str | None) -> str:
    """Return the label of a release: the beginning of its id, or "base"."""
    return BASE_MODEL if bundle is None else short_id(bundle)


def thumbs_metric(ratings: Sequence[ReleaseRatings]) -> Metric:
    """Return the thumbs by release, the one with the newest thumb first.

    The base model and `NAMED_RELEASES` others have labels of their own; all before are "older".
    """
    named = [each.adapter for each in ratings if each.adapter is not None][:NAMED_RELEASES]
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for each in ratings:
        is_named = each.adapter is None or each.adapter in named
        label = release_label(each.adapter) if is_named else OLDER
        counted[label, "up"] += each.up
        counted[label, "down"] += each.down
    family = GaugeMetricFamily(
        "burnish_thumbs", "Current thumbs by release", labels=["release", "thumb"]
    )
    for labels, count in counted.items():
        family.add_metric(labels, count)
    return family


def loop_metrics(loop_rounds: Sequence[Round]) -> Iterator[Metric]:
    """Yield what rounds of the loop tell: outcomes, failed attempts and the times of stages."""
    ended = [each.ended.document["outcome"] for each in loop_rounds if each.ended is not None]
    rounds = CounterMetricFamily(
        "burnish_loop_rounds", "Rounds of the loop by outcome", labels=["outcome"]
    )
    for outcome in ROUND_OUTCOMES:
        rounds.add_metric([outcome], ended.count(outcome))
    yield rounds
    failures = sum(len(each.failures) for each in loop_rounds)
    yield CounterMetricFamily(
        "burnish_loop_failures", "Failed attempts at a stage of a round", value=failures
    )
    stages = HistogramMetricFamily(
        "burnish_loop_stage_seconds", "Time of a round's stages", labels=["stage"]
    )
    for stage in STAGES:
        seconds = [
            float(each.stages[stage]["seconds"])
            for each in loop_rounds
            if "seconds" in each.stages.get(stage, {})
        ]
        stages.add_metric([stage], _buckets(seconds, STAGE_BUCKETS), sum(seconds))
    yield stages


def _buckets(values: Sequence[float], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """Return (upper bound, number of values up to it) for each bound, and for all values."""
    counted = [(str(float(bound)), float(sum(v <= bound for v in values))) for bound in bounds]
    return [*counted, ("+Inf", float(len(values)))]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
