"""The preset for the published follow-up set: golden enhancement, pictures, files, settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dlpe_study import make_study

from hilum.catalog.errors import InputError
from hilum.postprocessing.dlpe.enhancement import enhance, sampling_ring
from hilum.systems.dlpe.files import write_files
from hilum.systems.dlpe.follow_up_set import semantic_map
from hilum.systems.dlpe.options import Options
from hilum.systems.dlpe.overlay import beside, further


@pytest.fixture(scope="module")
def stored(golden):
    return np.load(golden / "dlpe_quant" / "04_followup_reproduction.npz")


def scan(stored):
    ct = (stored["hu"].astype(np.float32) + np.float32(600)) / np.float32(1600)
    return ct, stored["lung"], stored["airway"], stored["vessel"]


def test_golden_main_program_and_follow_up_script(stored) -> None:
    lung = stored["lung"] > 0
    for name, without in (("main", None), ("followup", stored["visible"])):
        found = enhance(*scan(stored), mode="parity", without=without)
        assert found.window_level == pytest.approx(float(stored[f"level_{name}"]), abs=1e-3)
        assert found.window_width == pytest.approx(float(stored[f"width_{name}"]), abs=1e-3)
        np.testing.assert_allclose(found.volume[lung], stored[f"enhanced_{name}"], atol=1e-6)
    inside = found.volume[(stored["visible"] > 0) & lung]
    assert np.median(inside) == pytest.approx(float(stored["value_in_visible"]), abs=1e-6)


def test_golden_corrected_follow_up(stored) -> None:
    ct, lung, airway, vessel = scan(stored)
    found = enhance(ct, lung, airway, vessel, mode="corrected", without=stored["visible"])
    ring = sampling_ring(lung, (airway | vessel) & lung, "corrected") & ~stored["visible"] & 1
    packed = np.packbits(ring) if stored["corr_ring"].size != ring.size else ring.ravel()
    np.testing.assert_array_equal(packed, stored["corr_ring"].ravel())
    np.testing.assert_array_equal(found.ring, ring)
    assert found.window_level == pytest.approx(float(stored["corr_level"]), abs=1e-3)
    assert found.window_width == pytest.approx(float(stored["corr_width"]), abs=1e-3)
    np.testing.assert_allclose(found.volume[lung > 0], stored["corr_enhanced"], atol=1e-6)


def test_golden_semantic_and_lesion_pictures(golden) -> None:
    stored = np.load(golden / "dlpe_quant" / "05_pictures.npz")
    shown = semantic_map(*(stored[name] for name in ("ct", "lung", "airway", "vessel")))
    np.testing.assert_allclose(shown, stored["semantic"], atol=1e-6)
    both = further(beside(stored["enhanced01"], stored["union"], "Y"), stored["visible"], "G")
    np.testing.assert_allclose(both, stored["yellow_green"], atol=1e-6)


def test_the_preset_sets_ratios_and_refinement() -> None:
    options = Options(preset="follow-up-set")
    assert (options.airway_ratio, options.vessel_ratio) == (0.016, 0.08)
    assert options.refine
    assert Options(preset="follow-up-set", airway_ratio=0.03).airway_ratio == 0.03
    assert not Options().refine
    with pytest.raises(InputError, match="visible"):
        Options(preset="follow-up-set", visible=False)
    with pytest.raises(InputError, match="no preset"):
        Options(preset="other")


def test_the_sets_files_are_written(tmp_path) -> None:
    study = make_study()
    result = replace(study.result, series=None, options={"preset": "follow-up-set"})
    assert "follow-up-set/" in write_files(result, tmp_path)
    folder = tmp_path / "follow-up-set"
    enhanced = np.load(folder / "enhanced.npz")["array"]
    np.testing.assert_array_equal(enhanced, result.enhancement.volume)
    assert enhanced.dtype == np.float32
    for name in ("lung", "airway", "vessel"):
        np.testing.assert_array_equal(
            np.load(folder / f"{name}_mask.npz")["array"], result.masks[name]
        )
    assert (folder / "semantic.png").is_file()
