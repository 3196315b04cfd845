"""People: what each talks about, how they talk and how often. All follows from the seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from data._wording import Manners, read

#: Group to the intent of its conversations.
GROUPS: Final = {
    "nursery": "nursery_advice",
    "home_office": "home_office_advice",
    "garden": "garden_advice",
    "student": "price_and_discounts",
    "kitchen": "kitchen_advice",
    "warm_home": "heating_and_cooling",
    "pets": "pet_advice",
    "decor": "decorating_advice",
}

#: How much a group has to say from January to June.
SEASONS: Final = {
    "garden": (4, 6, 13, 19, 17, 11),
    "warm_home": (19, 15, 8, 4, 6, 13),
    "student": (13, 9, 9, 8, 9, 15),
    "decor": (8, 9, 13, 13, 10, 9),
}
_EVEN: Final = (10, 10, 10, 10, 10, 11)


@dataclass
class Person:
    user_id: str
    group: str | None
    """None: a person without a taste of their own, the noise."""
    second: str | None
    style: str
    talks: int
    slots: dict[str, str]
    next_topic: dict[str, int] = field(default_factory=dict)
    """Group to the topic that comes next in its story."""
    bought: dict[str, str] = field(default_factory=dict)
    """Group to what they asked about last: a later question on delivery or repair is about that."""

    def groups(self) -> tuple[str, ...]:
        return tuple(g for g in (self.group, self.second) if g is not None)

    @property
    def currency(self) -> str:
        return "EUR" if self.slots["city"] in {"Cork", "Köln"} else "GBP"

    def season(self) -> tuple[int, ...]:
        return SEASONS.get(self.group or "", _EVEN)

    def pick_group(self, rng: Random) -> str:
        """Return what a conversation is about: mostly the own taste, at times anything."""
        roll = rng.random()
        if self.group is None or roll < 0.14:
            return rng.choice(list(GROUPS))
        return self.second if self.second is not None and roll < 0.42 else self.group


def _slots(rng: Random, index: int) -> dict[str, str]:
    slots = {name: rng.choice(values) for name, values in read("slots")["person"].items()}
    # Addresses and numbers that are reserved for examples and reach nobody (RFC 2606, Ofcom's drama numbers).
    slots["email"] = f"{slots['name'].lower()}.{index}@example.com".translate(str.maketrans("ëøéá", "eoea"))
    slots["phone"] = f"07700 900{index:03d}"
    return slots


def make_people(
    number: int, conversations: int, fixed: dict[str, tuple[str, str | None, str, int]], rng: Random
) -> list[Person]:
    """Return the people, whose `talks` sum to `conversations`.

    `fixed` holds (group, second group, style, talks) of the people whose story is written by hand; talks 0 leaves
    the number to chance.
    """
    people = []
    for index in range(1, number + 1):
        user_id = f"u{index:04d}"
        group = None if rng.random() < 0.10 else rng.choice(list(GROUPS))
        second = rng.choice([g for g in GROUPS if g != group]) if group and rng.random() < 0.3 else None
        style = rng.choice(Manners.STYLES)
        roll = rng.random()
        talks = 1 if roll < 0.16 else rng.randint(8, 12) if roll < 0.23 else rng.randint(2, 6)
        if user_id in fixed:
            group, second, style, planned = fixed[user_id]
            talks = planned or rng.randint(3, 5)
        people.append(Person(user_id, group, second, style, talks, _slots(rng, index)))
    # Only people in the middle give or take, so that the rare one-timers and regulars stay as drawn.
    while (gap := conversations - sum(p.talks for p in people)) != 0:
        person = rng.choice([p for p in people if p.user_id not in fixed and 2 <= p.talks <= 6])
        person.talks = min(6, max(2, person.talks + (1 if gap > 0 else -1)))
    return people
