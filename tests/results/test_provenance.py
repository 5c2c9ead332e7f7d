"""Whose weights made a result, as reports tell it."""

from __future__ import annotations

from hilum.results.provenance import weights_entry, weights_note

WEIGHTS = {"network": "lung", "source": "random (seed 0)", "sha256": "ab" * 32, "kind": "random"}


def test_entries_have_what_the_server_reports_and_none_for_the_rest() -> None:
    whole = weights_entry("cxr_lung", {"weights": WEIGHTS, "precision": "int8"}, "tensorrt")
    assert whole == {
        "network": "lung", "source": "random (seed 0)", "sha256": "ab" * 32,
        "kind": "random", "precision": "int8", "served_by": "tensorrt",
    }  # fmt: skip
    silent = weights_entry("cxr_lung", None)
    assert silent == {
        "network": "cxr_lung", "source": "unknown", "sha256": None,
        "kind": "unknown", "precision": None, "served_by": None,
    }  # fmt: skip
    old = weights_entry("cxr_lung", {"weights": WEIGHTS})
    assert (old["sha256"], old["precision"]) == ("ab" * 32, None)


def test_notes_are_of_the_weights_alone() -> None:
    random, silent = weights_entry("a", {"weights": WEIGHTS}), weights_entry("b", None)
    known = weights_entry("c", {"weights": WEIGHTS | {"kind": "checkpoint"}})
    assert weights_note([known, random]).startswith("RANDOM WEIGHTS")
    assert weights_note([known, silent]).startswith("Weights unknown")
    assert weights_note([known]) == ""
    own = weights_entry("d", {"weights": WEIGHTS | {"kind": "user file", "source": "random.onnx"}})
    assert weights_note([known, own]).startswith("USER'S OWN NETWORK")
    assert weights_note([own, random]).startswith("RANDOM WEIGHTS")


def test_reference_weights_are_never_taken_for_the_published_ones() -> None:
    reference = weights_entry("a", {"weights": WEIGHTS | {"kind": "reference"}})
    known = weights_entry("b", {"weights": WEIGHTS | {"kind": "checkpoint"}})
    random = weights_entry("c", {"weights": WEIGHTS})
    assert weights_note([known, reference]) == (
        "REFERENCE WEIGHTS: trained on generated images and 60 public X-rays, to try Hilum; "
        "not the published networks."
    )
    assert weights_note([reference, random]).startswith("RANDOM WEIGHTS")
