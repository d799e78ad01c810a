"""Which images a split gets, where a source has to draw them: stratified, and the same everywhere.

Places are shared out among the classes by Webster's method: each next place goes to the class with
the largest weight / (2 * places + 1). Within a class the order is that of SHA-256(seed, key of the
image), so a draw depends neither on a library's random generator nor on the order of a listing.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Sequence


def share_out(n: int, weights: Sequence[int], capacities: Sequence[int]) -> list[int]:
    """Share `n` places out in proportion to `weights`, no class above its capacity.

    Equal weights share as evenly as the capacities allow. Ties go to the earlier class.

    Returns:
        Places of each class; their sum is the smaller of `n` and the sum of the capacities.
    """
    places = [0] * len(weights)
    queue: list[tuple[float, int]] = [
        (-w, i) for i, w in enumerate(weights) if w > 0 and capacities[i] > 0
    ]
    heapq.heapify(queue)
    while n > 0 and queue:
        _, i = heapq.heappop(queue)
        places[i] += 1
        n -= 1
        if places[i] < capacities[i]:
            heapq.heappush(queue, (-weights[i] / (2 * places[i] + 1), i))
    return places


def draw_stratified(
    labels: Sequence[int],
    keys: Sequence[str],
    n: int,
    *,
    seed: int,
    balanced: bool = False,
    leave: int = 0,
) -> list[int]:
    """Draw `n` images, each class in proportion to how many images it has.

    Args:
        labels: The class of each image.
        keys: A name for each image, different from all others.
        n: How many to draw.
        seed: Another seed, another draw.
        balanced: Equally many of each class instead, as far as it has them.
        leave: How many images of every class are never drawn.

    Returns:
        Positions in `labels`, ascending; fewer than `n` where the classes do not have so many.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    classes = sorted(members)
    sizes = [len(members[c]) for c in classes]
    places = share_out(
        n, [1] * len(sizes) if balanced else sizes, [max(size - leave, 0) for size in sizes]
    )

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{keys[index]}".encode()).digest()

    drawn: list[int] = []
    for c, count in zip(classes, places, strict=True):
        drawn += sorted(members[c], key=rank)[:count]
    return sorted(drawn)
