"""The share of the examples that one user may have a part in. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from engine.errors import InvalidInput
from feedback_store.examples.types import IMPORTED, TrainingExample


def users_of(example: TrainingExample) -> tuple[str, ...]:
    """The users whose share an example counts for.

    An example from a file counts for nobody: the operator chose the file. Nor does a choice between
    two answers for the reviewer who made it on the console, where alone others' answers are judged.
    """
    origin = example.origin
    if any(side.base == IMPORTED for side in example.sides):
        return ()
    if example.source == "comparison":
        return tuple(user for user in origin.user_ids if user == origin.asked_by)
    return origin.user_ids


def user_cap(total: int, counts: Mapping[str, int], *, share: float, floor: int) -> int | None:
    """The number of examples of a kind that one user may have a part in; None: any number.

    No user may outweigh the others where there are enough others: not in a household of two, where
    even equal parts are larger than the share. For the arguments see `share_cap`.
    """
    if len(counts) < 1 / share:
        return None
    return share_cap(total, counts, share=share, floor=floor)


def share_cap(total: int, counts: Mapping[str, int], *, share: float, floor: int) -> int:
    """The number of `total` items that a single user may have a part in.

    `counts` has the number of items of each user. The promise is about what remains: of the items
    kept, no user has a part in more than `max(share, 1 / number of users)`, unless in at most
    `floor` of them. Raises `InvalidInput` for a share outside (0, 1] or a floor below 0.
    """
    if not 0 < share <= 1 or floor < 0:
        raise InvalidInput(f"share {share} must be above 0 and at most 1, floor {floor} at least 0")
    return max(floor, _largest_cap(total, list(counts.values()), share))


def over_cap(users_of_each: Iterable[Collection[str]], cap: int | None) -> Iterator[bool]:
    """Return, for each item in order, whether to set it aside: no user has part in over `cap`.

    An item with several users counts for each; one without a user is always kept. Of a user over
    the cap the earliest items are kept, so that a later flood can neither push out what they said
    before nor change what an earlier snapshot held.
    """
    kept: Counter[str] = Counter()
    for users in users_of_each:
        over = cap is not None and any(kept[user] >= cap for user in users)
        if not over:
            kept.update(set(users))
        yield over


def _largest_cap(total: int, counts: Sequence[int], share: float) -> int:
    """The largest c with c <= share * (what is surely kept when each user may have c); or 0.

    Each item set aside is one too many for some user, so at most sum(max(0, count - c)) are; with
    one user an item it is exactly that many.
    """
    if not counts:
        return 0
    import numpy as np  # takes as long to import as a home without feedback to be read

    share = max(share, 1 / len(counts))
    over = np.cumsum(np.bincount(counts)[::-1])[::-1]  # over[c]: users with c items or more
    set_aside = np.append(np.cumsum(over[:0:-1])[::-1], 0)  # by cap, 0 to the largest count
    caps = np.arange(len(set_aside))
    possible = caps <= share * (total - set_aside) + 1e-9  # 49 * (1 / 49) is a little below 1
    return int(caps[possible].max(initial=0))
