"""Whose weights made a result, as reports tell it."""

from __future__ import annotations

from hilum.client.provenance import weights_entry, weights_note

WEIGHTS = {"network": "lung", "source": "random (seed 0)", "sha256": "ab" * 32, "kind": "random"}


def test_entries_have_what_the_server_tells_and_none_for_the_rest() -> None:
    whole = weights_entry("cxr_lung", {"weights": WEIGHTS, "precision": "int8"}, "tensorrt")
    assert whole == {
        "network": "lung", "source": "random (seed 0)", "sha256": "ab" * 32,
        "precision": "int8", "served_by": "tensorrt",
    }  # fmt: skip
    silent = weights_entry("cxr_lung", None)
    assert silent == {
        "network": "cxr_lung", "source": "unknown", "sha256": None,
        "precision": None, "served_by": None,
    }  # fmt: skip
    old = weights_entry("cxr_lung", {"weights": WEIGHTS})
    assert (old["sha256"], old["precision"]) == ("ab" * 32, None)


def test_notes_are_of_the_weights_alone() -> None:
    random, silent = weights_entry("a", {"weights": WEIGHTS}), weights_entry("b", None)
    known = weights_entry("c", {"weights": WEIGHTS | {"source": "checkpoint c.pth"}})
    assert weights_note([known, random]).startswith("RANDOM WEIGHTS")
    assert weights_note([known, silent]).startswith("Weights unknown")
    assert weights_note([known]) == ""
