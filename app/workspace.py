"""An opened home folder: everything that needs no model in memory.

Commands on feedback and releases need no more, and answer within a second: so this module imports
no library of models. `Service` adds the engine.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.claims import open_home
from app.default_files import add_default_files
from app.loop_settings import loop_timetable, loop_webhook
from app.settings import Settings
from app.shared_prompts import read_prompts
from app.tuning_elsewhere import tuning_elsewhere
from deploy.releases.learning import Learning, kinds_trained_on
from deploy.releases.registry import Registry
from deploy.rounds.trigger import LoopStatus
from engine.adapters.bundle import open_model
from engine.errors import InvalidInput, UnknownId
from engine.home import Home
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.examples import Example, read_examples
from engine.storage import find_digest, sweep
from engine.units import DAY_SECONDS
from feedback_store.accounts.accounts import Accounts
from feedback_store.ai_feedback.alternatives import Alternatives
from feedback_store.ai_feedback.comparison_queue import ComparisonQueue
from feedback_store.ai_feedback.drafts import Drafts
from feedback_store.conversations.conversation_list import Conversations
from feedback_store.curation.alerts import LookedAlerts, find_alerts
from feedback_store.curation.decisions import Curation
from feedback_store.curation.inbox import Inbox
from feedback_store.examples.rules import Rules
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.personal.own_examples import OwnExamples
from feedback_store.personal.own_prompts import OwnPrompts, PromptText
from feedback_store.personal.shared_examples import SharedExamples
from feedback_store.privacy.redaction import Redactor
from feedback_store.snapshots.taking import take_snapshot
from feedback_store.storage.database import Database, database_url
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.outcomes import Outcomes
from feedback_store.view.ratings import count_ratings_by_day, read_ratings
from feedback_store.view.training_set import TrainingSet
from tuning.jobs.runner import JobRunner
from tuning.recipe import Recipe, read_recipe_with_origins

if TYPE_CHECKING:
    from app.tools.toolbox import Toolbox
    from deploy.canary.canaries import Canaries
    from deploy.forgetting import Forgetting
    from deploy.loop import Loop
    from deploy.releases.promotion import Releases
    from deploy.releases.trend import Trend
    from feedback_store.documents.library import Library

ALERT_DAYS = 30
BUNDLE_ID = "sha256:"


class Workspace:
    """One home folder, opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        open_home(self.home)
        for folder in self.home.artefacts:
            sweep(folder)
        add_default_files(self.home)
        self.database = Database(database_url(self.home, settings.database_url))
        self.store = FeedbackStore(self.database)
        self.accounts = Accounts(self.database)
        self.curation = Curation(self.database, consent_by_default=settings.consent == "opt-out")
        self.own_examples = OwnExamples(self.database, self.curation)
        self.shared_examples = SharedExamples(self.database, self.curation)
        self.feedback_examples = FeedbackExamples(
            self.database,
            self.own_examples if settings.own_examples else None,
            self.shared_examples,
        )
        self.own_prompts = OwnPrompts(self.database)
        self.drafts = Drafts(self.database)
        self.inbox = Inbox(self.database)
        self.looked_alerts = LookedAlerts(self.database)
        self.alternatives = Alternatives(self.database, self.curation.refusing)
        self.comparison_queue = ComparisonQueue(self.database, self.store, self.curation.refusing)
        rules = Rules(
            max_answer_chars=settings.max_answer_chars,
            user_share=settings.user_share,
            user_floor=settings.user_floor,
        )
        self.outcomes = Outcomes(self.database, self.curation, rules)
        self.training_set = TrainingSet(EvidenceReader(self.database), self.curation, rules)
        self.registry = Registry(self.database)
        self.learning = Learning(self.home, self.database, self.registry)
        self.jobs = JobRunner(
            self.home,
            settings.model_cache,
            threads=settings.tune_threads,
            accelerate_config=settings.tune_accelerate_config,
            nice=settings.tune_nice,
            process=tuning_elsewhere(settings),
        )

    # Imports of what takes long to import and few commands need are inside these properties

    @cached_property
    def documents(self) -> Library:
        """The library of documents."""
        from feedback_store.documents.library import open_library

        return open_library(self.home.documents, self.settings.embedding_model)

    @cached_property
    def toolbox(self) -> Toolbox:
        """The tools that answers may call."""
        from app.tools.toolbox import open_toolbox

        return open_toolbox(self.settings, self.database, self.documents)

    @cached_property
    def conversations(self) -> Conversations:
        """The conversations of everybody, as each person sees their own."""
        return Conversations(self.database)

    @cached_property
    def base(self) -> BaseModel:
        """The base model, which is fetched or converted at first use.

        It may be a bundle's id: a model that full fine-tuning made.
        """
        name = self.settings.model
        if name.startswith(BUNDLE_ID):
            name = str(open_model(self.home.bundles, find_digest(self.home.bundles, name)))
        return resolve(name, self.settings.model_cache)

    @cached_property
    def releases(self) -> Releases:
        """The operations on releases: promote, roll back, wait."""
        from deploy.releases.promotion import Releases

        return Releases(self.registry, self.home.bundles, self.base)

    @cached_property
    def canaries(self) -> Canaries:
        """The canaries of the home; its base model is resolved at first use."""
        from deploy.canary.canaries import Canaries, CanaryOptions

        settings = self.settings
        return Canaries(
            self.registry,
            self.database,
            lambda: self.releases,
            lambda: self.base.digest,
            CanaryOptions(
                share=settings.canary_share,
                votes=settings.canary_votes,
                days=settings.canary_days,
                user_share=settings.user_share,
                user_floor=settings.user_floor,
            ),
        )

    @cached_property
    def loop(self) -> Loop:
        """The periodic loop of tuning."""
        from deploy.gate.thresholds import read_thresholds
        from deploy.loop import Loop
        from deploy.rounds.store import RoundStore

        settings = self.settings
        return Loop(
            home=self.home,
            base=self.base,
            training_set=self.training_set,
            take_snapshot=self.take_snapshot,
            registry=self.registry,
            jobs=self.jobs,
            rounds=RoundStore(self.database),
            min_new_pairs=settings.loop_min_new_pairs,
            weights=settings.loop_weights,
            read_ratings=(
                (lambda live: read_ratings(self.database, self.base.digest, live))
                if settings.loop_watch_ratings
                else None
            ),
            timetable=loop_timetable(settings),
            canary=self.canaries if settings.loop_canary else None,
            notify=loop_webhook(settings),
            thresholds=read_thresholds(settings.gate_thresholds),
        )

    def loop_status(self) -> LoopStatus:
        """Return what the loop would do now, under the recipe of the settings."""
        try:
            taught = kinds_trained_on(asdict(self.loop_recipe()[0]))
        except InvalidInput:  # a round would say so; what people said still counts
            return self.loop.status()
        return self.loop.status(taught)

    def release_trend(self) -> Trend:
        """The trend of the releases and of their thumbs, as points to draw."""
        from deploy.releases.trend import trend_of

        thumbs = count_ratings_by_day(self.database, self.base.digest)
        return trend_of(self.registry.record(), self.registry.live().bundle, thumbs)

    def take_snapshot(self, *, may_be_empty: bool = False) -> str:
        """Freeze the current examples under the settings; returns the snapshot's digest."""
        return take_snapshot(
            self.home.snapshots,
            self.training_set,
            self.curation,
            redact=Redactor().redact if self.settings.redact else None,
            thoughts_in_loss=self.settings.learn_thoughts,
            may_be_empty=may_be_empty,
        )

    @cached_property
    def forgetting(self) -> Forgetting:
        """Erasure and retention."""
        from deploy.forgetting import Forgetting

        return Forgetting(
            home=self.home, database=self.database, registry=self.registry, jobs=self.jobs
        )

    def alerts(self) -> list[dict[str, Any]]:
        """Return suspicious votes of the last weeks, the texts they judge, and who has looked."""
        found = find_alerts(self.database, since=time.time() - ALERT_DAYS * DAY_SECONDS)
        return self.looked_alerts.mark(found)

    def look_at_alert(self, alert_id: str, actor: str) -> None:
        """Record that `actor` has looked at an alert; raises `UnknownId` for no alert of now."""
        self._require_alert(alert_id)
        self.looked_alerts.look_at(alert_id, actor)
        self.accounts.audit.record(actor, "look at alert", alert_id)

    def put_alert_back(self, alert_id: str, actor: str) -> None:
        """Let an alert be a new one again; raises `UnknownId` for no alert of now."""
        self._require_alert(alert_id)
        self.looked_alerts.put_back(alert_id)
        self.accounts.audit.record(actor, "put alert back", alert_id)

    def _require_alert(self, alert_id: str) -> None:
        if all(each["id"] != alert_id for each in self.alerts()):
            raise UnknownId(f"no alert {alert_id[:80]!r}")

    def forget_old(self) -> None:
        """Delete conversations older than `retention_days`."""
        days = self.settings.retention_days
        if days is not None:
            self.forgetting.forget_before(time.time() - days * DAY_SECONDS)

    def examples(self) -> tuple[Example, ...]:
        """Return the few-shot examples; the file is read each time, since the operator edits it."""
        return read_examples(self.home.examples)

    def shared_prompts(self) -> tuple[PromptText, ...]:
        """Return the prompts that the operator shares; the file is read each time, too."""
        return read_prompts(self.home.prompts)

    def recipe(self, path: Path | None = None) -> tuple[Recipe, dict[str, str]]:
        """Return a recipe and the origin of each of its values."""
        return read_recipe_with_origins(path or self.settings.recipe)

    def loop_recipe(self) -> tuple[Recipe, dict[str, str]]:
        """Return the recipe of the loop, for which nobody waits: the operator's, or auto."""
        return self.recipe(self.settings.recipe or Path("auto"))

    def close(self) -> None:
        """Close the database."""
        self.database.close()
