"""`pipeline/meanings.py`: every feature has a meaning of its own, and no meaning is left of one that is gone."""

from __future__ import annotations

from collections import Counter

from lightmill.pipeline.full import FULL
from lightmill.pipeline.meanings import EACH, meaning


def test_every_feature_has_a_meaning_of_its_own():
    texts = {name: meaning(name) for name in FULL}
    assert [name for name, text in texts.items() if text == name] == []
    assert [text for text, n in Counter(texts.values()).items() if n > 1] == []
    assert max(map(len, texts.values())) <= 110


def test_none_is_left_over():
    assert set(EACH) <= set(FULL)


def test_one_that_is_not_known_is_its_own_name():
    assert meaning("no_such_feature") == "no_such_feature"
