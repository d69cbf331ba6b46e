"""The taxonomy: names, columns, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from lightmill.models.taxonomy import DESCRIPTIONS, LEAVES, check_classes, column, describe, path_to


def test_the_leaves_are_the_classes_of_the_design():
    assert LEAVES[0] == "nonvar"
    assert set(LEAVES) == {
        "nonvar", "EW", "EA", "RRab", "RRc", "RRd", "RS_CVn", "LPV", "HADS", "CEP", "ELL", "SN_Ia", "SN_CC", "other",
    }  # fmt: skip


def test_every_leaf_has_a_path_a_column_and_a_description():
    assert list(DESCRIPTIONS) == list(LEAVES)
    for leaf in LEAVES:
        assert path_to(leaf)[-1] == leaf
        assert column(leaf) == f"p_{leaf}"
        assert describe(leaf) == DESCRIPTIONS[leaf]
        assert "\n" not in describe(leaf)


def test_paths():
    assert path_to("EA") == ("variable", "periodic", "EA")
    assert path_to("SN_CC") == ("variable", "transient", "SN_CC")
    assert path_to("other") == ("variable", "other")


def test_known_classes_are_given_back_in_order():
    assert check_classes(iter(["RRc", "EW"])) == ("RRc", "EW")


@pytest.mark.parametrize(("wrong", "near"), [("RRAB", "RRab"), ("SN Ia", "SN_Ia"), ("RSCVn", "RS_CVn")])
def test_an_unknown_class_is_named_with_the_nearest(wrong: str, near: str):
    with pytest.raises(ValueError, match=f"unknown class '{wrong}'.* Did you mean '{near}'"):
        check_classes(["EW", wrong])


def test_a_node_is_no_leaf():
    with pytest.raises(ValueError, match="unknown class 'periodic'"):
        column("periodic")


def test_a_class_may_stand_once():
    with pytest.raises(ValueError, match="EW is listed more than once"):
        check_classes(["EW", "EA", "EW"])
