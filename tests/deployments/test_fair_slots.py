"""Fair sharing: round robin between scenes, urgency within one, caps, and nothing is lost."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.fair_slots import FairSlots


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Line:
    """Requests that wait; remembers the order in which they got a slot."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.granted: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, name: str, urgency: int = 0) -> None:
        async def wait() -> None:
            await self.slots.acquire(name[0], urgency)
            self.granted.append(name)

        self.tasks[name] = asyncio.create_task(wait())


async def test_scenes_take_turns() -> None:
    slots = FairSlots(1)
    line = Line(slots)
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        line.ask(name)
    await settle()
    for _ in range(5):
        slots.release(line.granted[-1][0])
        await settle()
    assert line.granted == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_the_most_urgent_of_a_scene_goes_first() -> None:
    slots = FairSlots(1)
    line = Line(slots)
    for name, urgency in (("a1", 1), ("a2", 1), ("a3", 5), ("a4", 3)):
        line.ask(name, urgency)
    await settle()
    for _ in range(3):
        slots.release("a")
        await settle()
    assert line.granted == ["a1", "a3", "a4", "a2"]


async def test_a_scene_gets_no_more_than_its_cap() -> None:
    slots = FairSlots(4, per_owner=2)
    line = Line(slots)
    for name in ("a1", "a2", "a3", "b1"):
        line.ask(name)
    await settle()
    assert line.granted == ["a1", "a2", "b1"]
    slots.release("b")
    await settle()
    assert "a3" not in line.granted
    slots.release("a")
    await settle()
    assert line.granted[-1] == "a3"


async def test_who_stops_waiting_costs_nobody_a_slot() -> None:
    slots = FairSlots(1)
    line = Line(slots)
    for name in ("a1", "b1", "c1"):
        line.ask(name)
    await settle()
    line.tasks["b1"].cancel()
    await settle()
    slots.release("a")
    await settle()
    assert line.granted == ["a1", "c1"]


async def test_a_slot_granted_to_someone_who_leaves_goes_on() -> None:
    slots = FairSlots(1)
    line = Line(slots)
    line.ask("a1")
    await settle()
    line.ask("b1")
    line.ask("c1")
    await settle()
    slots.release("a")  # b1 is granted, and cancelled before it runs again
    line.tasks["b1"].cancel()
    await settle()
    assert line.granted == ["a1", "c1"]


@given(
    capacity=st.integers(1, 4),
    cap=st.none() | st.integers(1, 3),
    asked=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=25),
)
@settings(max_examples=60, deadline=None)
def test_everyone_is_served_and_limits_hold(
    capacity: int, cap: int | None, asked: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        slots = FairSlots(capacity, cap)
        held: list[str] = []
        served = 0

        async def work(owner: str, urgency: int) -> None:
            nonlocal served
            await slots.acquire(owner, urgency)
            held.append(owner)
            assert len(held) <= capacity
            assert held.count(owner) <= (cap or capacity)
            await asyncio.sleep(0)
            held.remove(owner)
            slots.release(owner)
            served += 1

        async with asyncio.timeout(5):
            await asyncio.gather(*(work(owner, urgency) for owner, urgency in asked))
        assert served == len(asked)

    asyncio.run(run())


async def test_slots_ahead_are_given_only_while_enough_others_wait() -> None:
    """With two slots: a third and a fourth as long as two others are left to whoever is free."""
    slots = FairSlots(2, ahead=2)
    line = Line(slots)
    for name in ("a1", "a2", "a3", "a4"):
        line.ask(name)
    await settle()
    assert line.granted == ["a1", "a2"]  # a3 and a4 wait: each belongs to whom is free first
    line.ask("a5")
    await settle()
    assert line.granted == ["a1", "a2", "a3"]
    for name in ("a6", "a7", "a8"):
        line.ask(name)
    await settle()
    assert line.granted == ["a1", "a2", "a3", "a4"]  # no more than capacity and ahead
    # While more than two wait, each that ends is made up for; then only those of the capacity.
    seen = []
    for _ in range(5):
        slots.release("a")
        await settle()
        seen.append(line.granted[4:])
    assert seen == [["a5"], ["a5", "a6"], ["a5", "a6"], ["a5", "a6"], ["a5", "a6", "a7"]]


async def test_an_owner_at_its_limit_does_not_count_as_waiting() -> None:
    slots = FairSlots(1, per_owner=1, ahead=1)
    line = Line(slots)
    for name in ("a1", "a2", "a3", "a4"):
        line.ask(name)
    await settle()
    assert line.granted == ["a1"]
    line.ask("b1")
    await settle()
    assert line.granted == ["a1"]  # b1 alone waits: it is for whoever is free
    line.ask("c1")
    await settle()
    assert line.granted == ["a1", "b1"]


async def test_groups_take_turns_whatever_the_number_of_their_owners() -> None:
    """A user with three scenes gets no more than one with a single scene."""
    slots, granted = FairSlots(1), []

    async def ask(owner: str, group: str) -> None:
        await slots.acquire(owner, group=group)
        granted.append(owner)

    tasks = [
        asyncio.create_task(ask(owner, group))
        for owner, group in zip(("a1", "a2", "a3", "a1", "b", "b"), "aaaabb", strict=True)
    ]
    for _ in tasks:
        await asyncio.sleep(0.01)
        slots.release(granted[-1])
    await asyncio.gather(*tasks)
    assert granted == ["a1", "b", "a2", "b", "a3", "a1"]


async def test_a_higher_priority_gets_the_next_slot() -> None:
    slots, granted = FairSlots(1), []

    async def ask(owner: str, priority: int) -> None:
        await slots.acquire(owner, priority=priority)
        granted.append(owner)

    tasks = [
        asyncio.create_task(ask(owner, priority))
        for owner, priority in [("first", 0), ("low", -1), ("plain", 0), ("high", 5)]
    ]
    for _ in tasks:
        await asyncio.sleep(0.01)
        slots.release(granted[-1])
    await asyncio.gather(*tasks)
    assert granted == ["first", "high", "plain", "low"]
    assert not slots._classes
    assert not slots._last_turn_of_group
