"""Write the sample data, the same bytes every time: `python -m data.generate [FOLDER]`.

What is planted in it stands in PLANTED, which the tests hold it to, and in README.md in words.
"""

from __future__ import annotations

import calendar
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from data._people import GROUPS, Person, make_people
from data._wording import Line, Manners, Topic, read, render, topics

SEED: Final = 20260630
USERS: Final = 400
CONVERSATIONS: Final = 1500
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
END: Final = datetime(2026, 7, 1, tzinfo=UTC)

#: What a recommender should find in the data. `taste` of a sample says who belongs to which group.
PLANTED: Final[dict[str, Any]] = {
    "group_campaigns": {
        "nursery": ["k07", "k08", "k09"],
        "home_office": ["k10", "k11", "k12"],
        "garden": ["k13", "k14", "k15"],
        "student": ["k05", "k16", "k17", "k18"],
        "kitchen": ["k19", "k20", "k21"],
        "warm_home": ["k22", "k23", "k24"],
        "pets": ["k25", "k26"],
        "decor": ["k27", "k28", "k29"],
    },
    "most_popular": "k01",
    "pair": ["k13", "k19"],
    "paused": ["k09", "k21"],
    "expired": ["k12", "k14"],
    "future": "k30",
    "rising_campaign": "k24",
    "rising_intent": "delivery_status",
    "rising_month": 6,
    "intent_without_campaign": "repair_spare_parts",
    "opted_out_of_profiling": 8,
    "opted_out_of_channels": 10,
    "opted_out_of_all": 1,
}

_CHANNELS: Final = {"chat": 45, "email": 25, "app": 20, "phone": 10}
#: From here on a flooded depot makes people ask for their orders.
_FLOOD: Final = datetime(2026, 6, 3, tzinfo=UTC)
_DAYS: Final = tuple(calendar.day_name)[:6]
_MONTHS: Final = tuple(calendar.month_name)[1:]

#: How far people go with a campaign that is to their taste, with one for everybody, and with any other.
_OWN: Final = {"view": 14, "click": 20, "like": 35, "convert": 27, "mention": 2, "dislike": 2}
_COMMON: Final = {"view": 25, "click": 26, "like": 25, "convert": 18, "mention": 4, "dislike": 2}
_OTHER: Final = {"view": 48, "click": 24, "like": 8, "convert": 3, "mention": 6, "dislike": 11}
#: What is on record when somebody went so far.
_LADDER: Final = {
    "view": ("view",),
    "click": ("view", "click"),
    "like": ("click", "like"),
    "convert": ("view", "click", "convert"),
    "mention": ("mention",),
    "dislike": ("view", "dislike"),
}

Record = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    conversations: list[Record]
    campaigns: list[Record]
    preferences: list[Record]
    taste: dict[str, tuple[str, ...]]
    """User to their groups, the main one first; empty for people without a taste."""

    def write(self, folder: Path) -> None:
        """Write the three files into the folder."""
        _write_array(folder / "sample_conversations.json", self.conversations)
        _write_array(folder / "sample_campaigns.json", self.campaigns)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in self.preferences)
        (folder / "sample_preferences.jsonl").write_text(lines, encoding="utf-8", newline="\n")


def _write_array(path: Path, records: Iterable[Record]) -> None:
    # One record a line: a JSON array for every reader, and still a diff that people can follow.
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _draw(weights: Mapping[str, float], rng: Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _fitting(lines: Iterable[Line], name: str) -> list[str]:
    return [line.text for line in lines if line.fits(name)]


class Writer:
    """Writes conversations; remembers what people said, so that they seldom say it twice."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._manners = Manners()
        self._said: set[str] = set()
        self._topics = {group: topics(group, intent) for group, intent in GROUPS.items()}
        self._drawn: dict[str, list[str]] = read("slots")["talk"]
        self._service = {topic.key: topic for topic in topics("service")}

    def talk(self, person: Person, at: datetime, about: str | None = None) -> tuple[str, list[Record]]:
        """Return intent and messages of a conversation; `about` names its topic, else the person chooses."""
        group, topic = self._choose(person, at, about)
        slots = self._slots(person, topic, at)
        if topic.service:
            slots["item"] = self._bought(person, group, topic, at)
        else:
            slots["item"] = person.bought[group] = self._rng.choice(_fitting(topic.items, person.slots["breed"]))
        return topic.intent, self._messages(person, topic, slots)

    def _bought(self, person: Person, group: str, topic: Topic, at: datetime) -> str:
        """Return the item that a service topic is about: the one that the person asked about last, if it can be."""
        last = person.bought.get(group)
        if last is not None and topic.serves(last):
            return last
        shop = [
            item
            for other in self._topics[group]
            if other.in_season(at.month)
            for item in _fitting(other.items, person.slots["breed"])
        ]
        return self._rng.choice([item for item in shop if topic.serves(item)] or shop)

    def _choose(self, person: Person, at: datetime, about: str | None) -> tuple[str, Topic]:
        if about is not None:
            for group in person.groups():
                for topic in self._topics[group]:
                    if topic.key == about:
                        return group, topic
            return person.groups()[0], self._service[about]
        group = person.pick_group(self._rng)
        flood = at >= _FLOOD
        service = {
            "depot_flood": 27 if flood else 0,
            "delivery": 3 if flood else 6,
            "return": 5,
            "refund": 3,
            "assembly": 6,
        }
        service["repair"] = 5 + at.month
        service[""] = 100 - sum(service.values())
        if key := _draw(service, self._rng):
            return group, self._service[key]
        # People go through the topics of a group in order, which is how one thing leads to another.
        order = self._topics[group]
        first = person.next_topic.get(group, self._rng.randrange(len(order)))
        for step in range(len(order)):
            index = (first + step) % len(order)
            if order[index].in_season(at.month):
                # Some come back to the same thing before they move on.
                person.next_topic[group] = index + (self._rng.random() < 0.7)
                return group, order[index]
        raise ValueError(f"group {group!r} has no topic for month {at.month}")

    def _slots(self, person: Person, topic: Topic, at: datetime) -> dict[str, str]:
        rng = self._rng
        day = rng.randrange(len(_DAYS))
        low, high = topic.prices
        price = rng.randrange(low, high, 5) + 4
        cm = rng.randint(78, 130)
        drawn = {name: rng.choice(values) for name, values in self._drawn.items()}
        return (
            person.slots
            | drawn
            | {
                "order": f"LF-{rng.randint(10000, 99999)}",
                "price": str(price),
                "price2": str(rng.randrange(9, max(15, price // 3), 5)),
                "cm": str(cm),
                "cm2": str(cm + rng.randint(10, 60)),
                "day": _DAYS[day],
                "day2": _DAYS[(day + rng.randint(2, 4)) % len(_DAYS)],
                "month_now": _MONTHS[at.month - 1],
                "month_last": _MONTHS[at.month - 2],
                "month": _MONTHS[(at.month - 1 + rng.randint(1, 3)) % 12],
            }
        )

    def _messages(self, person: Person, topic: Topic, slots: dict[str, str]) -> list[Record]:
        rng = self._rng
        talk = self._manners.phrases

        def user(templates: Iterable[str], *, first: bool = False) -> Record:
            return {"role": "user", "text": self._say(list(templates), person, topic, slots, first)}

        def agent(template: str) -> Record:
            return {"role": "agent", "text": render(template, slots, rng)}

        greeting = render(rng.choice(talk("agent_greetings")), slots, rng)
        messages = [
            user(_fitting(topic.openers, slots["item"]), first=True),
            agent(f"{greeting} {rng.choice(_fitting(topic.advice, slots['item']))}"),
        ]
        questions = rng.choices((0, 1, 2, 3), (12, 48, 30, 10))[0]
        fitting = [question for question in topic.qa if question.fits(slots["item"])]
        for question in rng.sample(fitting, min(questions, len(fitting))):
            messages += [user([question.text]), agent(question.answer)]
        if len(messages) == 2 or rng.random() < 0.62:
            messages.append(user(talk("closings_service" if topic.service else "closings_advice")))
            if rng.random() < 0.4:
                messages.append(agent(rng.choice(talk("agent_closings"))))
        return messages

    def _say(self, templates: list[str], person: Person, topic: Topic, slots: dict[str, str], first: bool) -> str:
        rng = self._rng
        text = ""
        for _ in range(20):
            plain = render(rng.choice(templates), slots, rng)
            text = self._manners.dress(plain, person.style, first=first, service=topic.service, slots=slots, rng=rng)
            if text.casefold() not in self._said:
                break
        self._said.add(text.casefold())
        return text


@dataclass(frozen=True)
class Offer:
    """A campaign as the generator sees it."""

    campaign_id: str
    group: str
    intents: tuple[str, ...]
    starts_at: datetime
    ends_at: datetime


class Responses:
    """What people do with campaigns after a conversation."""

    def __init__(self, offers: Iterable[Offer], rng: Random) -> None:
        self._offers = tuple(offers)
        self._rng = rng
        self._done: dict[str, dict[str, str]] = defaultdict(dict)
        """User to campaign to how far they went."""

    def after(self, person: Person, intent: str, at: datetime) -> list[Record]:
        """Return the engagements that follow a conversation, in order of time."""
        rng = self._rng
        engagements: list[Record] = []
        live = [o for o in self._offers if o.starts_at <= at < o.ends_at - timedelta(days=3)]
        for _ in range(rng.choices((0, 1, 2, 3), (26, 42, 24, 8))[0]):
            weights = {o.campaign_id: self._pull(person, o, intent, at) for o in live}
            drawn = _draw(weights, rng)
            offer = next(o for o in live if o.campaign_id == drawn)
            reach = _draw(self._reach(person, offer, intent, at), rng)
            self._done[person.user_id][offer.campaign_id] = reach
            live.remove(offer)
            when = at + timedelta(minutes=rng.randint(15, 2000))
            when = min(when, END - timedelta(minutes=rng.randint(20, 60)))
            for step, action in enumerate(_LADDER[reach]):
                one: Record = {
                    "campaign_id": offer.campaign_id,
                    "action": action,
                    "at": _stamp(when + timedelta(minutes=5 * step)),
                }
                if action == "convert":
                    one |= {"value": round(math.exp(rng.gauss(4.2, 0.7)), 2), "currency": person.currency}
                engagements.append(one)
        return sorted(engagements, key=lambda e: str(e["at"]))

    def _pull(self, person: Person, offer: Offer, intent: str, at: datetime) -> float:
        """Return how much a campaign draws a person now."""
        done = self._done[person.user_id]
        if offer.campaign_id == PLANTED["most_popular"]:
            pull = 0.9
        elif self._matches(person, offer):
            pull = 1.0 if offer.group == person.group else 0.7
        elif offer.group == "all":
            pull = 0.6 if intent in offer.intents else 0.12
        else:
            pull = 0.2 if person.group is None else 0.06
        if intent in offer.intents and offer.group != "all":
            pull *= 1.8
        if offer.campaign_id == PLANTED["rising_campaign"]:
            pull = pull * 5 + 0.4 if at.month == PLANTED["rising_month"] else pull * 0.4
        if self._partner_taken(person, offer):
            pull += 9.0
        return pull * {"convert": 0.02, "dislike": 0.02, "like": 0.25}.get(done.get(offer.campaign_id, ""), 1.0)

    def _reach(self, person: Person, offer: Offer, intent: str, at: datetime) -> Mapping[str, float]:
        if self._matches(person, offer) or self._partner_taken(person, offer):
            return _OWN
        rising = offer.campaign_id == PLANTED["rising_campaign"] and at.month == PLANTED["rising_month"]
        timely = offer.group == "all" and intent in offer.intents
        return _COMMON if rising or timely or offer.campaign_id == PLANTED["most_popular"] else _OTHER

    def _partner_taken(self, person: Person, offer: Offer) -> bool:
        pair = PLANTED["pair"]
        if offer.campaign_id not in pair:
            return False
        partner = pair[1 - pair.index(offer.campaign_id)]
        return self._done[person.user_id].get(partner) in {"click", "like", "convert"}

    @staticmethod
    def _matches(person: Person, offer: Offer) -> bool:
        return offer.group in person.groups()


def generate(seed: int = SEED) -> Sample:
    """Return the sample: the same for a seed on every machine."""
    stories = {s["user_id"]: s for s in read("stories")["story"]}
    written = {w["user_id"]: w for w in read("stories")["written"]}
    fixed = {u: (s["group"], s.get("second"), s["style"], len(s["plan"])) for u, s in stories.items()}
    fixed |= {u: (w["group"], None, "plain", 0) for u, w in written.items()}
    rng = Random(seed)
    people = make_people(USERS, CONVERSATIONS, fixed, rng)

    raw_campaigns = read("campaigns")["campaign"]
    plans: list[tuple[datetime, Person, str | None, Record | None]] = []
    for person in people:
        story, by_hand = stories.get(person.user_id), written.get(person.user_id)
        if story is not None:
            plans += [(_moment(rng, *map(int, day.split("-"))), person, about, None) for day, about in story["plan"]]
            continue
        if by_hand is not None:
            plans.append((datetime.fromisoformat(by_hand["started_at"]), person, None, by_hand))
        for _ in range(person.talks - (by_hand is not None)):
            month = rng.choices(range(1, 7), person.season())[0]
            plans.append((_moment(rng, 2026, month, rng.randint(1, 28 if month == 2 else 30)), person, None, None))
    plans.sort(key=lambda plan: (plan[0], plan[1].user_id))

    writer = Writer(rng)
    responses = Responses(map(_offer, raw_campaigns), rng)
    conversations = []
    for number, (at, person, about, by_hand) in enumerate(plans, 1):
        if by_hand is not None:
            intent, channel = by_hand["intent"], by_hand["channel"]
            messages = [{"role": role, "text": text} for role, text in by_hand["messages"]]
        else:
            intent, messages = writer.talk(person, at, about)
            channel = _draw(_CHANNELS, rng)
        conversations.append(
            {
                "conversation_id": f"c{number:04d}",
                "user_id": person.user_id,
                "started_at": _stamp(at),
                "channel": channel,
                "messages": messages,
                "intent": intent if by_hand is not None or rng.random() < 0.85 else None,
                "engagements": responses.after(person, intent, at),
            }
        )
    return Sample(
        conversations,
        [_campaign(raw) for raw in raw_campaigns],
        _preferences([p.user_id for p in people if p.user_id not in fixed], rng),
        {p.user_id: p.groups() for p in people},
    )


def _moment(rng: Random, year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, rng.randint(7, 21), rng.randrange(60), rng.randrange(60), tzinfo=UTC)


def _offer(raw: Record) -> Offer:
    return Offer(
        campaign_id=raw["campaign_id"],
        group=raw["group"],
        intents=tuple(raw["intents"]),
        starts_at=_day(raw["starts_at"]),
        # Paused campaigns were paused a week before the data ends; until then people met them.
        ends_at=_day(raw["ends_at"])
        if "ends_at" in raw
        else _day("2026-06-24")
        if "status" in raw
        else END + (END - START),
    )


def _campaign(raw: Record) -> Record:
    campaign = {k: v for k, v in raw.items() if k != "group"}
    for name in ("starts_at", "ends_at"):
        if name in campaign:
            campaign[name] = _stamp(_day(campaign[name]))
    return campaign | {"status": raw.get("status", "active")}


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _preferences(user_ids: list[str], rng: Random) -> list[Record]:
    """Return who opted out of what: of profiling, of channels in each form that is allowed, and of all."""
    profiling, channels = PLANTED["opted_out_of_profiling"], PLANTED["opted_out_of_channels"]
    everything = PLANTED["opted_out_of_all"]
    chosen = rng.sample(user_ids, profiling + channels + everything)
    forms: tuple[Any, ...] = (
        {"email": False},
        {"app": False, "phone": False},
        ["app", "chat"],
        {"*": False, "email": True},
    )
    rows: list[Record] = [{"user_id": u, "profiling": False} for u in chosen[:profiling]]
    rows += [
        {"user_id": u, "profiling": True, "channels": forms[i % len(forms)]}
        for i, u in enumerate(chosen[profiling : profiling + channels])
    ]
    rows += [{"user_id": u, "profiling": False, "channels": {"*": False}} for u in chosen[profiling + channels :]]
    return sorted(rows, key=lambda row: str(row["user_id"]))


if __name__ == "__main__":
    generate().write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
