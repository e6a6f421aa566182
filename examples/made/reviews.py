"""A file of made reviews: no corpus of real ones may be passed on with flowgraph.

Every item is good or bad in some of six respects, q (items, 6), normal; every user cares more for some than for others,
c (users, 6), a softmax of normals times 2. A rating is

    3.4 + generosity of the user + 1.6 · the sum over respects of c · q + noise,  rounded, from 1 to 5.

A review's text is three to five remarks. What a remark is about is drawn by c, so what users write of tells what they
care for; its adjective tells q with some noise, so what is written of an item tells what it is like. Nothing in a text
tells the rating otherwise, and no text is real. Items are written about with unequal frequency.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RESPECTS = {
    "food": ("food", "cooking", "menu", "soup", "dessert"),
    "service": ("service", "waiter", "staff", "welcome"),
    "price": ("price", "bill", "value"),
    "place": ("place", "room", "terrace", "decoration", "view"),
    "noise": ("music", "noise level", "mood", "atmosphere"),
    "speed": ("wait", "speed", "timing", "queue"),
}
GRADES = (  # from worst to best
    ("awful", "terrible", "dreadful"),
    ("poor", "disappointing", "weak"),
    ("average", "acceptable", "ordinary"),
    ("good", "pleasant", "decent"),
    ("wonderful", "excellent", "superb"),
)
FORMS = ("the {noun} was {word}", "{word} {noun}", "i found the {noun} {word}", "a {word} {noun}")
ASIDES = ("we came on a friday", "my sister came along", "it was raining", "we had booked", "near the station")


def write_reviews(path: Path, users: int, items: int, each: int, seed: int = 0) -> None:
    """`each` reviews by every user, of different items, in a random order."""
    rng = np.random.default_rng(seed)
    respects = list(RESPECTS.values())
    quality = rng.normal(size=(items, len(respects)))
    care = np.exp(2 * rng.normal(size=(users, len(respects))))
    care /= care.sum(axis=1, keepdims=True)
    generosity = 0.3 * rng.normal(size=users)
    popular = rng.dirichlet(np.full(items, 2.0))
    lines = []
    for user in range(users):
        for item in rng.choice(items, each, replace=False, p=popular):
            liking = 3.4 + generosity[user] + 1.6 * care[user] @ quality[item] + 0.4 * rng.normal()
            remarks = []
            for respect in rng.choice(len(respects), rng.integers(3, 6), p=care[user]):
                grade = int(np.clip(np.rint(2 + 1.3 * quality[item, respect] + 0.5 * rng.normal()), 0, 4))
                noun, word = rng.choice(respects[respect]), rng.choice(GRADES[grade])
                remarks.append(str(rng.choice(FORMS)).format(noun=noun, word=word))
            if rng.random() < 0.3:
                remarks.insert(int(rng.integers(len(remarks) + 1)), str(rng.choice(ASIDES)))
            review = {"user": f"user{user}", "item": f"item{item}", "rating": int(np.clip(np.rint(liking), 1, 5))}
            lines.append(json.dumps(review | {"text": ". ".join(remarks).capitalize() + "."}))
    rng.shuffle(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
