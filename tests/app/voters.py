"""Forty people who vote over HTTP without a pause: `python -m tests.app.voters URL VOTES ANSWERS`.

A process of its own, with a client that takes little time, so that what is measured is the server.
Prints the seconds that each vote took, sorted, as a JSON list.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit


def vote(url: str, answer_id: str, votes: int) -> list[float]:
    """One person's votes on one answer, over one connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    seconds = []
    for turn in range(votes):
        body = json.dumps({"vote": 1 if turn % 2 else -1})
        begun = time.perf_counter()
        connection.request(
            "POST", f"/api/answers/{answer_id}/vote", body, {"content-type": "application/json"}
        )
        response = connection.getresponse()
        response.read()
        seconds.append(time.perf_counter() - begun)
        assert response.status == 200
    return seconds


def main() -> None:
    """Vote, and tell how long it took."""
    url, votes, *answers = sys.argv[1:]
    with ThreadPoolExecutor(len(answers)) as people:
        taken = people.map(lambda answer_id: vote(url, answer_id, int(votes)), answers)
        json.dump(sorted(second for each in taken for second in each), sys.stdout)


if __name__ == "__main__":
    main()
