"""The needs of many users, up to a million: `python -m benchmarks.scale`.

Computes a table from figures that were measured (each with its document), sourced (each with its
paper or page) or assumed (each named so), and prints it as Markdown; docs/scale.md holds it.
Options replace a figure by one of your own.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass, fields, replace

USERS = (100, 1_000, 10_000, 100_000, 1_000_000)
SECONDS_AN_HOUR, HOURS_A_DAY, DAYS_A_MONTH, DAYS_A_YEAR = 3600, 24, 30.4, 365


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures that the table rests on.

    Measured: `tokens_per_second` of one server at eight streams, the embedded model as int4 on two
    cores (docs/serving.md); `bytes_a_turn` in the store, of an answer of 80 words with 0.3 votes
    (`python -m benchmarks.feedback --turns 50000 --votes 15000 --users 1000`: 52 MB).

    Sourced: `questions_a_day` of a weekly user (18 billion messages a week by 700 million users:
    Chatterji et al. 2025, "How People Use ChatGPT", NBER working paper 34255); `tokens_an_answer`
    (Zheng et al. 2023, "LMSYS-Chat-1M", table 1); `price_an_hour` of two vCPUs (a quarter of a
    c5.2xlarge on demand, 0.34 USD, in the examples of Amazon's EC2 Auto Scaling guide).

    Assumed: `busy_hour`, the share of a day's questions in its busiest hour; `load`, the share of
    a server's pace that is planned for; `thumbs`, the share of answers that get one;
    `turn_growth`, as an answer of 215 tokens is twice as long as one of 80 words.
    """

    tokens_per_second: float = 476
    bytes_a_turn: float = 1_040
    questions_a_day: float = 18e9 / 7 / 700e6
    tokens_an_answer: float = 214.5
    price_an_hour: float = 0.34 / 4
    busy_hour: float = 0.1
    load: float = 0.7
    thumbs: float = 0.03
    turn_growth: float = 2.0


@dataclass(frozen=True, slots=True)
class Need:
    """The needs of weekly users; `tokens` and `votes` are per second of the busy hour."""

    users: int
    questions_a_day: float
    tokens: float
    servers: int
    votes_a_day: float
    votes: float
    gigabytes_a_year: float
    dollars_a_month: float


def need_of(users: int, figures: Figures) -> Need:
    """Compute what a number of weekly users needs."""
    questions = users * figures.questions_a_day
    busy = figures.busy_hour / SECONDS_AN_HOUR
    tokens = questions * figures.tokens_an_answer * busy
    servers = max(1, math.ceil(tokens / (figures.tokens_per_second * figures.load)))
    votes_a_day = questions * figures.thumbs
    stored = questions * figures.bytes_a_turn * figures.turn_growth * DAYS_A_YEAR
    hours = HOURS_A_DAY * DAYS_A_MONTH
    return Need(
        users,
        questions,
        tokens,
        servers,
        votes_a_day,
        votes_a_day * busy,
        stored / 1e9,
        servers * figures.price_an_hour * hours,
    )


def table_of(figures: Figures) -> str:
    """Return the table as Markdown, a row for each of `USERS`."""
    heads = (
        "weekly users",
        "questions a day",
        "tokens/s, busy hour",
        "servers of two vCPUs",
        "thumbs a day",
        "thumbs/s, busy hour",
        "store, GB a year",
        "servers, USD a month",
    )
    rows = [
        " | ".join(
            f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
            for value in asdict(need_of(users, figures)).values()
        )
        for users in USERS
    ]
    lines = [" | ".join(heads), "|".join(["---"] * len(heads)), *rows]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)


def main() -> None:
    """Print the table, with figures of one's own where options give them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field in fields(Figures):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    print(table_of(replace(Figures(), **vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
