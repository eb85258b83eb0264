"""A flood of votes, through a real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.workspace import Workspace
from engine.prompts.modes import make_template
from tests.app.load.conftest import crowd

pytestmark = pytest.mark.integration


class TestVotes:
    """A flood of votes (docs/faults.md, row 16)."""

    CLIENTS = 40

    @pytest.fixture
    def answers(self, workspace: Workspace) -> list[str]:
        """An answer for each client to vote on."""
        store, template = workspace.store, make_template("plain", ())
        found = []
        for number in range(self.CLIENTS):
            turn = store.add_turn(
                user_id="api", question="Q", template=template, conversation_id=f"c{number}"
            )
            answer_id = store.begin_answer(
                turn.id, base_digest="base", adapter_digest=None, sampling={}, seed=0
            )
            store.finish_answer(answer_id, status="done", text="A", complete=True)
            found.append(answer_id)
        return found

    @pytest.mark.parametrize("each", [6, pytest.param(50, marks=pytest.mark.slow)])
    def test_each_vote_that_is_taken_over_http_is_stored_once(
        self, url: str, workspace: Workspace, answers: list[str], each: int
    ) -> None:
        taken: list[str] = []

        async def vote(client: httpx.AsyncClient, number: int) -> None:
            for turn in range(each):
                key = f"{number}-{turn}"
                body = {"vote": 1 if turn % 2 else -1, "idempotency_key": key}
                path = f"/api/answers/{answers[number]}/vote"
                for _ in range(2):  # the second one is a replay, as after a lost reply
                    response = await client.post(path, json=body)
                    assert response.status_code in (200, 429), response.text
                if response.status_code == 200:
                    taken.append(key)

        async def scene() -> None:
            async with crowd(url) as client:
                await asyncio.gather(*(vote(client, n) for n in range(self.CLIENTS)))

        asyncio.run(scene())
        assert len(taken) == self.CLIENTS * each == workspace.store.event_count()
        counts = workspace.store.counts()
        assert (counts["votes"], counts["votes_up"]) == (self.CLIENTS, self.CLIENTS)

    @pytest.mark.slow
    def test_of_10_000_votes_over_http_few_take_long(
        self, url: str, workspace: Workspace, answers: list[str]
    ) -> None:
        command = [sys.executable, "-m", "tests.app.voters", url, str(10_000 // self.CLIENTS)]
        done = subprocess.run([*command, *answers], capture_output=True, text=True, check=True)
        seconds = json.loads(done.stdout)
        assert len(seconds) == 10_000 == workspace.store.event_count()
        assert seconds[9_900] < 0.25

    @pytest.mark.parametrize("votes", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
    def test_forty_writers_never_meet_a_locked_database_and_lose_nothing(
        self, workspace: Workspace, answers: list[str], votes: int
    ) -> None:
        def vote(number: int) -> list[float]:
            seconds = []
            for turn in range(votes // self.CLIENTS):
                begun = time.perf_counter()
                workspace.store.vote(answers[number], "api", 1 if turn % 2 else -1)
                seconds.append(time.perf_counter() - begun)
            return seconds

        with ThreadPoolExecutor(self.CLIENTS) as writers:
            taken = sorted(
                second for each in writers.map(vote, range(self.CLIENTS)) for second in each
            )
        assert len(taken) == votes == workspace.store.event_count()
        assert workspace.store.counts()["votes"] == self.CLIENTS
        if votes == 10_000:
            assert taken[int(0.99 * votes)] < 0.25
