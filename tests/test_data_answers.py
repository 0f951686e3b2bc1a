"""Answers: what is written is read back; what is no canonical text is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staf.data.answers import (
    Entity,
    check_answer,
    read_entities,
    read_several,
    safe_label,
    write_entities,
    write_several,
)
from staf.data.example import Example, normalise
from staf.errors import BadData

words = st.text("abcXYZ 019-,:()'", min_size=1, max_size=20).map(lambda t: " ".join(t.split())).filter(bool)
labels = st.lists(words.filter(lambda w: w != "none"), unique_by=str.casefold, min_size=1, max_size=8)


@given(labels, st.data())
def test_labels_are_read_back_in_their_order(order, data):
    chosen = data.draw(st.sets(st.sampled_from(order)))
    text = write_several(chosen, order)
    assert set(read_several(text)) == set(read_several(text, order)) == chosen
    assert [label for label in order if label in chosen] == list(read_several(text))


@given(st.lists(st.builds(Entity, st.sampled_from(["problem", "test"]), words), max_size=6))
def test_entities_are_read_back_with_their_types_repeated_ones_included(entities):
    assert list(read_entities(write_entities(entities), ("problem", "test"))) == entities


@pytest.mark.parametrize("text", ["a; ", "b ; c", "x;"])
def test_an_entity_that_could_not_be_read_back_is_refused(text):
    with pytest.raises(BadData, match="could not be read back"):
        write_entities([Entity("problem", text)])


def test_a_semicolon_inside_a_word_does_no_harm():
    entities = [Entity("chemical", "1;2-dimethyl"), Entity("chemical", "salt")]
    assert list(read_entities(write_entities(entities))) == entities


@pytest.mark.parametrize("label", ["a;b", "none", " "])
def test_a_label_that_could_not_be_read_back_is_refused(label):
    with pytest.raises(BadData):
        write_several([label], [label])


def test_a_label_outside_the_order_is_refused():
    with pytest.raises(BadData, match="1 labels are not among the 2"):
        write_several(["x"], ["a", "b"])


def test_safe_label_makes_a_label_of_any_text():
    assert safe_label("Injury; left\n hand") == "Injury, left hand"


def test_what_a_model_wrote_is_read_as_far_as_it_is_an_answer():
    assert read_several("Sepsis; nonsense; sepsis; heart failure", ("heart failure", "sepsis")) == ("sepsis", "heart failure")
    assert read_several("None", ("a",)) == ()
    assert read_several("") == ()
    assert read_entities("problem: pain; what; test: ; dream: x", ("problem", "test")) == (Entity("problem", "pain"),)


def example(output_type: str, answer: str, labels: tuple[str, ...] = ()) -> Example:
    return Example("x/1", "kind", "Which?", "pain in the hoof", answer, labels, "train", (), output_type=output_type)


@pytest.mark.parametrize(
    ("output_type", "answer", "labels"),
    [
        ("multiple_choice", "yes", ("yes", "no")),
        ("multi_label", "a; c", ("a", "b", "c")),
        ("multi_label", "none", ("a", "b")),
        ("multi_label", "anything; else", ()),
        ("span", "the hoof", ()),
        ("ner", "problem: pain; place: hoof", ("problem", "place")),
        ("ner", "none", ("problem",)),
        ("generate_until", "Rest.", ()),
    ],
)
def test_canonical_answers_pass(output_type, answer, labels):
    check_answer(example(output_type, answer, labels))


@pytest.mark.parametrize(
    ("output_type", "answer", "labels"),
    [
        ("multiple_choice", "maybe", ("yes", "no")),
        ("multi_label", "c; a", ("a", "b", "c")),
        ("multi_label", "a; z", ("a", "b")),
        ("multi_label", "a; a", ()),
        ("span", "the tail", ()),
        ("span", "", ()),
        ("ner", "problem: itch", ("problem",)),
        ("ner", "dream: pain", ("problem",)),
        ("generate_until", " Rest.", ()),
        ("generate_until", "", ()),
        ("essay", "Rest.", ()),
    ],
)
def test_other_answers_are_refused_by_naming_only_the_id(output_type, answer, labels):
    with pytest.raises(BadData, match="x/1: the answer is not a") as caught:
        check_answer(example(output_type, answer, labels))
    assert "hoof" not in str(caught.value)


@given(st.text(max_size=60))
def test_normalising_keeps_letters_and_digits_and_is_done_once(text):
    once = normalise(text)
    assert normalise(once) == once
    assert all(c.isalnum() or c == " " for c in once)
    assert once == " ".join(once.split())
