"""What synthetic lines say."""

from __future__ import annotations

import re
import string
from pathlib import Path

import numpy as np
import pytest

from data.synthesis.texts import TextMaker, TextOptions, held_out_word, word_list


def make(options: TextOptions, count: int = 1500) -> list[str]:
    maker, rng = TextMaker(options), np.random.default_rng(3)
    return [maker.make(rng) for _ in range(count)]


def test_texts_hold_only_characters_of_the_charset() -> None:
    for characters in (string.digits, string.ascii_uppercase, "abcxyz0189-. ", "äöüß"):
        texts = make(TextOptions(characters=characters, longest=10), 400)
        assert set("".join(texts)) <= set(characters)


def test_texts_keep_to_the_shortest_and_the_longest_length() -> None:
    lengths = {len(text) for text in make(TextOptions(shortest=3, longest=9))}
    assert lengths <= set(range(3, 10))
    assert {3, 6, 9} <= lengths


def test_texts_of_one_to_twelve_characters_have_six_or_more_on_average() -> None:
    assert np.mean([len(text) for text in make(TextOptions(shortest=1, longest=12), 4000)]) >= 6


def test_no_text_begins_or_ends_with_a_space() -> None:
    texts = make(TextOptions(phrases=0.6))
    assert all(text == text.strip() for text in texts)
    assert sum(" " in text for text in texts) > 300


def test_without_a_space_in_the_charset_no_text_has_one() -> None:
    assert not any(" " in text for text in make(TextOptions(characters=string.ascii_letters, phrases=0.9)))


def test_texts_are_mixed_case_with_digits_and_punctuation() -> None:
    texts = make(TextOptions(longest=12))
    shares = {
        "lower": np.mean([text.islower() for text in texts]),
        "upper": np.mean([text.isupper() for text in texts]),
        "capitalised": np.mean([text[:1].isupper() and text[1:].islower() for text in texts]),
        "digits": np.mean([any(c.isdigit() for c in text) for text in texts]),
        "punctuation": np.mean([any(c in string.punctuation for c in text) for text in texts]),
    }
    assert min(shares.values()) > 0.1, shares


def test_every_printable_character_occurs() -> None:
    assert set("".join(make(TextOptions(), 8000))) == set(string.printable[:95])


def test_the_same_generator_makes_the_same_texts() -> None:
    assert make(TextOptions(), 50) == make(TextOptions(), 50)


def test_no_word_is_on_both_sides_of_the_split() -> None:
    training, kept = set(word_list("training")), set(word_list("held-out"))
    assert not {word.casefold() for word in training} & {word.casefold() for word in kept}
    assert training | kept == set(word_list("all"))
    assert 0.17 < len(kept) / len(word_list("all")) < 0.23


def test_a_word_is_on_one_side_whatever_its_case() -> None:
    assert all(held_out_word(word) == held_out_word(word.upper()) for word in word_list("all")[::50])


def test_the_word_list_is_sorted_and_has_each_word_once() -> None:
    words = word_list("all")
    assert list(words) == sorted(set(words))
    assert 35_000 < len(words) < 50_000


def test_the_word_lists_licence_lies_beside_it() -> None:
    folder = Path(TextMaker.make.__code__.co_filename).parent
    assert "SCOWL" in (folder / "words.LICENSE.txt").read_text(encoding="utf-8")


def test_half_of_the_texts_come_from_the_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Straßenbahn\n  \nGleis 9\n", encoding="utf-8")
    texts = make(TextOptions(characters=string.ascii_letters + "ß9 ", longest=11, corpus=corpus))
    assert 0.4 < np.mean([text in ("Straßenbahn", "Gleis 9") for text in texts]) < 0.6


def test_a_corpus_may_give_all_texts_and_its_long_lines_are_cut_at_spaces(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(
        "This is far too long a line, for the limit is eleven.\nincomprehensibilities\n", encoding="utf-8"
    )
    texts = make(TextOptions(longest=11, corpus=corpus, corpus_share=1.0), 200)
    assert set(texts) == {"This is far", "too long a", "line, for", "the limit", "is eleven."}


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("email", r"[\w.'-]+@[\w'-]+(\.\w+)+"),
        ("url", r"(https?://)?(www\.)?[\w'-]+(\.\w+)+([/?].*)?"),
        ("phone", r"(Tel: )?[+(]?\d[\d ()-]+"),
        ("street", r".*\d.*"),
    ],
)
def test_templates_make_what_they_are_named_after(kind: str, pattern: str) -> None:
    options = TextOptions(longest=60, phrases=0.0, kinds=((kind, 1.0),))
    maker, rng = TextMaker(options), np.random.default_rng(3)
    for _ in range(100):
        text = maker.makers[0](rng)
        assert re.fullmatch(pattern, text), text


def test_a_text_needs_but_one_of_the_sets_that_go_together() -> None:
    sets = (frozenset("abc"), frozenset("cde"))
    texts = make(TextOptions(characters="abcde", longest=4, together=sets), 300)
    assert all(any(some.issuperset(text) for some in sets) for text in texts)
    assert any("a" in text for text in texts)
    assert any("e" in text for text in texts)


def test_a_mark_never_stands_without_its_letter() -> None:
    texts = make(TextOptions(characters="xyz\u0364\u0303", longest=6), 200)
    assert set("".join(texts)) == set("xyz")


def test_a_corpus_is_brought_to_composed_characters(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Cafe\u0301\n", encoding="utf-8")
    assert "Café" in make(TextOptions(characters="Café", corpus=corpus), 50)


def test_the_byte_order_mark_of_a_corpus_is_no_character_of_its_first_line(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(b"\xef\xbb\xbfabc\n")
    assert "abc" in make(TextOptions(characters="abc", corpus=corpus), 50)


def test_a_mark_that_composes_to_a_character_outside_is_told() -> None:
    maker = TextMaker(TextOptions(characters="aeiou\u0301", including="\u0301"))
    with pytest.raises(ValueError, match=r"hold .* too; allow it or leave one out"):
        [maker.make(np.random.default_rng(seed)) for seed in range(300)]


def test_a_corpus_of_which_no_line_fits_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Straße\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"corpus\.txt"):
        TextMaker(TextOptions(characters="abc", corpus=corpus))


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        TextMaker(TextOptions(corpus=tmp_path / "nowhere.txt"))


def test_a_corpus_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "latin.txt"
    corpus.write_bytes("Straße".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        TextMaker(TextOptions(corpus=corpus))


@pytest.mark.parametrize("lengths", [(0, 5), (6, 5)])
def test_impossible_lengths_are_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shortest"):
        TextMaker(TextOptions(shortest=lengths[0], longest=lengths[1]))


def test_a_charset_without_visible_characters_is_refused() -> None:
    with pytest.raises(ValueError, match="no characters"):
        TextMaker(TextOptions(characters=" "))


def test_an_unknown_kind_of_text_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'poem'.*word"):
        TextMaker(TextOptions(kinds=(("poem", 1.0),)))


def test_every_text_holds_one_of_the_characters_that_it_must_include() -> None:
    texts = make(TextOptions(characters=string.ascii_letters + "€§ ", shortest=1, longest=6, including="€§"), 600)
    assert all("€" in text or "§" in text for text in texts)
    assert max(map(len, texts)) <= 6
    assert {text.index("€") for text in texts if "€" in text} >= {0, 1, 2, 3}


def test_signs_stand_beside_words_and_letters_anywhere(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("twelve tens\n", encoding="utf-8")
    characters = string.ascii_lowercase + "€ä "

    def texts_with(including: str) -> list[str]:
        options = TextOptions(characters, 1, 20, corpus=corpus, corpus_share=1.0, including=including)
        return make(options, 400)

    beside = sum("twelve" in text and "tens" in text for text in texts_with("€"))
    assert beside > 0.9 * 400
    assert any("€ t" in text or "e €" in text for text in texts_with("€"))
    within = [text.split("ä")[0] for text in texts_with("ä")]
    assert len(set(within)) > 8


def test_a_sign_makes_room_for_itself_in_a_text_of_full_length(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("twelve\n", encoding="utf-8")
    options = TextOptions(string.ascii_lowercase + "€", 1, 6, corpus=corpus, corpus_share=1.0, including="€")
    texts = make(options, 200)
    assert {len(text) for text in texts} == {6}
    assert {"€welve", "twelv€"} <= set(texts)


def test_texts_of_a_corpus_are_made_to_include_them_too(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("twelve\nthirteen\n", encoding="utf-8")
    options = TextOptions(string.ascii_letters + "€", 1, 9, corpus=corpus, corpus_share=1.0, including="€")
    texts = make(options, 100)
    assert all("€" in text for text in texts)
    assert any("twelve" in text for text in texts)


@pytest.mark.parametrize("including", ["ß", " "])
def test_what_no_text_could_include_is_refused(including: str) -> None:
    with pytest.raises(ValueError, match="including holds"):
        TextMaker(TextOptions(characters="abc ", including=including))
