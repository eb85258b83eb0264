"""The sentences of the operator's desk in one language: those of the page and of `burnish desk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.learning.desk import Desk, DeskRelease, OpenItem, ThumbShare, thumb_shares
from app.texts import say, translated
from deploy.rounds.trigger import FEW_PAIRS
from engine.units import local_minute
from feedback_store.examples.types import EXAMPLE_KINDS

SHORT_ID = slice(7, 13)  # enough to tell releases apart, and to name them to a command


@dataclass(frozen=True, slots=True)
class DeskWords:
    """The words for one desk at one moment, `now` in seconds since 1970."""

    desk: Desk
    language: str
    now: float

    def need(self, need: OpenItem) -> str:
        """The sentence of one thing that waits, with its link and command."""
        key = f"{need.kind}_one" if need.count == 1 and need.kind in _COUNTED else need.kind
        said = self._say(
            f"needs_{key}", count=need.count, release=self.name(need.release), live=self._live()
        )
        reason = translated(need.reason, self.language)
        if need.kind == "candidate":
            (release,) = (r for r in self.desk.releases if r.point.release == need.release)
            reason = self.gain(release)
        return f"{said} {reason}".rstrip()

    def loop(self) -> Sequence[str]:
        """The next step of the loop and its time, as `loop status` has it."""
        desk = self.desk
        status, plan = desk.loop, desk.plan
        if status.job_running:
            yet = self._say("next_training")
        else:
            key = "enough" if status.cause == "evidence" else "not_enough"
            yet = self._say(
                f"next_{key}", worth=f"{status.worth:g}", asked=f"{status.min_new_pairs:g}"
            )
            if status.cause in ("ratings", "schedule"):  # which start a round by themselves
                yet = f"{yet} {self._say(f'next_{status.cause}')}"
        when = capitalized(translated(plan.reason, self.language))
        if plan.until is not None:
            when = self._say("next_until", reason=when, when=self.moment(plan.until))
        trial = []
        if desk.canary is not None:
            share = f"{desk.canary.plan.share:.0%}"
            name = self.name(desk.canary.plan.candidate)
            trial.append(self._say("next_canary", release=name, share=share))
        if desk.canary is None:  # before a better release is anybody's, the operator knows how
            trial.append(say(f"console.canary.after_{desk.better_release}", self.language))
        return [yet, self._say("next_now", reason=when), *trial]

    def first_steps(self) -> Sequence[str]:
        """The way to a first training, and the sources of the missing examples."""
        desk, pairs = self.desk, self.desk.loop.pairs
        if not desk.is_new:
            return []
        if not desk.missing_pairs:
            return [self._say("first_enough", pairs=pairs, wanted=FEW_PAIRS)]
        return [
            self._say("first_few", pairs=pairs, wanted=FEW_PAIRS),
            self._say("first_from", missing=desk.missing_pairs),
        ]

    def round(self) -> str:
        """The outcome of the last round."""
        if not self.desk.rounds:
            return self._say("next_no_round")
        newest = self.desk.rounds[0]
        said = {"number": newest.number, "when": self.moment(newest.begun_at)}
        if newest.ended is None:
            stage = translated(str(newest.next_stage), self.language)
            return self._say("next_round_goes_on", stage=stage, **said)
        outcome, reason = (
            translated(str(newest.ended.document[name]), self.language)
            for name in ("outcome", "reason")
        )
        return self._say("next_round", outcome=outcome, reason=reason, **said)

    def figures(self) -> Mapping[str, str]:
        """The day's figures, by their names."""
        answers = self.desk.answers
        speed, first = answers.tokens_per_second, answers.first_token_seconds
        none = self._say("figures_none")
        return {
            self._say("figures_answers"): str(answers.answers),
            self._say("figures_speed"): none if speed is None else f"{speed:.0f}",
            self._say("figures_first"): none if first is None else f"{first:.1f} s",
        }

    def name(self, bundle: str | None) -> str:
        """A release's name on the desk: its number in the lineage, and the beginning of its id."""
        if bundle is None:
            return say("console.overview.base", self.language)
        number = self.desk.number_of(bundle)
        return bundle[SHORT_ID] if number is None else f"r{number} ({bundle[SHORT_ID]})"

    def verdict(self, release: DeskRelease) -> str:
        """The state of a release in words: live, was live, or not let in."""
        point = release.point
        if point.tainted:
            return self._say("lineage_tainted")
        if point.is_live:
            return self._say("lineage_live")
        verdict = translated(point.verdict or "not judged", self.language)
        return self._say("lineage_was_live") if release.was_live else verdict

    def gain(self, release: DeskRelease) -> str:
        """The gain of a release over the one before it, on held-out votes, in points."""
        point = release.point
        if point.gain is None:
            return ""
        points = {
            name: f"{100 * value:+.0f}"
            for name, value in (
                ("gain", point.gain.estimate),
                ("low", point.gain.low),
                ("high", point.gain.high),
            )
        }
        return self._say("lineage_gain", on=self.name(point.incumbent), **points)

    def learnt_from(self, release: DeskRelease) -> str:
        """The examples that a release learnt from, by kind."""
        counts = {
            kind: sum(n for source, n in release.sources.items() if source.startswith(f"{kind}/"))
            for kind in EXAMPLE_KINDS
        }
        return self._say("lineage_from", **counts) if any(counts.values()) else ""

    def thumbs(self, share: ThumbShare) -> str:
        """A share of thumbs up with its interval."""
        low, high = (f"{100 * end:.0f}" for end in share.interval)
        return self._say(
            "thumbs_share", share=f"{share.share:.0%}", low=low, high=high, total=share.total
        )

    def moment(self, at: float) -> str:
        """A time of this machine's zone, in words where it is near."""
        then, today = (datetime.fromtimestamp(each).astimezone() for each in (at, self.now))
        clock, days = then.strftime("%H:%M"), (then.date() - today.date()) // timedelta(days=1)
        near = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(days)
        if near is None:
            return local_minute(at)
        return self._say(f"when_{near}", clock=clock)

    def _live(self) -> str:
        return self.name(self.desk.live)

    def _say(self, key: str, **values: object) -> str:
        return say(f"console.desk.{key}", self.language, **values)


def capitalized(sentence: str) -> str:
    """Return a sentence of a lower floor as it stands on its own."""
    return sentence[:1].upper() + sentence[1:]


_COUNTED = ("bad_answers", "comparisons", "drafts", "alerts")  # whose sentence has a form for one


def desk_text(words: DeskWords) -> str:
    """Return the desk as lines of text, for a terminal."""
    desk = words.desk
    lines = [
        say("console.desk.needs_title", words.language),
        *(f"  {words.need(need)}" for need in desk.needs),
        *([] if desk.needs else [f"  {say('console.desk.needs_nothing', words.language)}"]),
        say("console.desk.doing_title", words.language),
        *(f"  {name}: {value}" for name, value in words.figures().items()),
        *(f"  {line}" for line in thumb_lines(words)),
        say("console.desk.next_title", words.language),
        *(f"  {line}" for line in (*words.first_steps(), *words.loop(), words.round())),
    ]
    return "\n".join(lines)


def thumb_lines(words: DeskWords) -> Sequence[str]:
    """Return the share of thumbs up of each release, or that nobody has voted yet."""
    shares = thumb_shares(words.desk.thumbs)
    lines = [f"{words.name(release)}: {words.thumbs(share)}" for release, share in shares.items()]
    return lines or [say("console.desk.thumbs_none_ever", words.language)]
