"""The neighbourhood of an item as a picture: the item in the middle, its followers around it, and theirs outside.

Thickness is the weight of a follower beside the strongest one of the same item. Places depend on the order alone, so
that a follower that stays keeps its place while the time moves.
"""

import math
from typing import NamedTuple

MAX_FIRST, MAX_SECOND = 8, 2
WIDTH, HEIGHT = 960, 560
MIDDLE = (WIDTH / 2, HEIGHT / 2)
FIRST_RADIUS, SECOND_RADIUS = (205.0, 135.0), (390.0, 240.0)
"""Half axes of the two rings, in pixels: names need more room beside each other than above."""
SPREAD = 0.5
"""Angle between the followers of one follower, as a share of the room that it has."""
NAME_CHARS = 22


class Link(NamedTuple):
    """An item that followed another one."""

    item: str
    title: str | None
    weight: float


class Node(NamedTuple):
    """An item in the picture, in pixels."""

    item: str
    name: str
    """Its title or id, cut."""
    whole: str
    x: float
    y: float
    radius: float
    ring: int
    weight: float
    name_x: float
    name_y: float
    anchor: str


class Edge(NamedTuple):
    """A line from an item to a follower, in pixels."""

    path: str
    width: float
    ring: int


class Drawn(NamedTuple):
    """The picture, and its content for a table."""

    nodes: list[Node]
    edges: list[Edge]
    width: int
    height: int
    first: list[Link]


def draw(item: Link, first: list[Link], second: dict[str, list[Link]]) -> Drawn:
    """The picture of an item with its followers, strongest first, and theirs."""
    middle = _node(item, *MIDDLE, 9.0, 0)
    nodes, edges = [middle], list[Edge]()
    placed = {item.item: middle}
    strongest = max((link.weight for link in first), default=1.0) or 1.0
    for n, link in enumerate(first):
        angle = _angle(n, len(first))
        placed[link.item] = node = _on_ring(link, angle, FIRST_RADIUS, 4.0 + 4.0 * link.weight / strongest, 1)
        nodes.append(node)
        edges.append(_edge(middle, node, 1.0 + 4.0 * link.weight / strongest, 1))
    for n, link in enumerate(first):
        followers = [f for f in second.get(link.item, []) if f.item != item.item]
        top = max((f.weight for f in followers), default=1.0) or 1.0
        new = [f for f in followers if f.item not in placed]
        room = 2 * math.pi / max(len(first), 3) * SPREAD
        for m, follower in enumerate(new):
            angle = _angle(n, len(first)) + (m - (len(new) - 1) / 2) * room
            placed[follower.item] = node = _on_ring(follower, angle, SECOND_RADIUS, 3.0, 2)
            nodes.append(node)
        for follower in followers:
            edges.append(_edge(placed[link.item], placed[follower.item], 0.8 + 1.4 * follower.weight / top, 2))
    return Drawn(nodes, edges, WIDTH, HEIGHT, first)


def _angle(n: int, of: int) -> float:
    return 2 * math.pi * n / max(of, 1) - math.pi / 2


def _on_ring(link: Link, angle: float, radius: tuple[float, float], size: float, ring: int) -> Node:
    x = MIDDLE[0] + radius[0] * math.cos(angle)
    y = MIDDLE[1] + radius[1] * math.sin(angle)
    return _node(link, x, y, size, ring)


def _node(link: Link, x: float, y: float, size: float, ring: int) -> Node:
    whole = link.title or link.item
    name = whole if len(whole) <= NAME_CHARS else whole[: NAME_CHARS - 1] + "…"
    below = y >= MIDDLE[1]
    name_y = y + size + 13 if below else y - size - 6
    anchor = "middle"
    if ring == 2:
        anchor = "start" if x < 90 else "end" if x > WIDTH - 90 else "middle"
    return Node(
        link.item, name, whole, round(x, 1), round(y, 1), round(size, 1), ring, link.weight, round(x, 1),
        round(name_y, 1), anchor,
    )  # fmt: skip


def _edge(start: Node, end: Node, width: float, ring: int) -> Edge:
    """A slightly bent line, so that there and back are two."""
    bend = 0.08
    mid_x = (start.x + end.x) / 2 + (end.y - start.y) * bend
    mid_y = (start.y + end.y) / 2 - (end.x - start.x) * bend
    path = f"M{start.x:.1f} {start.y:.1f}Q{mid_x:.1f} {mid_y:.1f} {end.x:.1f} {end.y:.1f}"
    return Edge(path, round(width, 1), ring)
