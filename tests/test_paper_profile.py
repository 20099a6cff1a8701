"""The paper profile runs from the command line: at tiny sizes here, since its own sizes want a GPU."""

import json
import shutil

import pytest

from support import paths, records, runner

DIGITS = {"digits_data": "digits", "digits_model": "mlp", "digits_train": 400, "digits_test": 200, "digits_epochs": 8}
PICTURES = {"pictures_data": "digits", "pictures_models": ["mlp", "small_cnn"], "pictures_train": 400, "pictures_test": 200}
TRAINING = {"digits_tailor_epochs": 3, "pictures_epochs": 8, "pictures_tailor_epochs": 3, "augment": False, "collapse_epochs": 3}
ATTACKS = {"attack_images": 20, "pgd_steps": 5, "pgd_restarts": 1, "corner_images": 20, "corner_images_digits": 20, "theorem_images": 60}
EVOLUTION = {"de_images": 2, "de_population": 20, "de_generations": 3}
SOFTMAX_KMEANS = {**DIGITS, **PICTURES, **TRAINING, **ATTACKS, **EVOLUTION}
CLUSTR_DATA = {"data": "digits", "model": "mlp", "train": 400, "test": 200, "attack_images": 30, "eps": 0.1}
CLUSTR_PICTURES = {"pictures": ["digits"], "picture_model": "mlp", "picture_seeds": 1, "augment": False}
CLUSTR_TRAINING = {"epochs": 8, "magnet_epochs": 3, "scratch_epochs": 4, "toy_points": 100, "toy_epochs": 5, "toy_seeds": 1}
CLUSTR_ATTACKS = {"loop_steps": 5, "loop_restarts": 2, "long_steps": 6, "nearest_grid": [1, 4], "search_images": 10}
CLUSTR = {**CLUSTR_DATA, **CLUSTR_PICTURES, **CLUSTR_TRAINING, **CLUSTR_ATTACKS, "protocol_images": 12, "protocol_heavy": 0}
TINY = {"01_softmax_kmeans": {"seeds": 1, **SOFTMAX_KMEANS}, "04_clustr": {"seeds": 1, **CLUSTR}}


@pytest.mark.parametrize("chapter", sorted(TINY))
def test_the_paper_profile_runs_at_tiny_sizes(chapter, tmp_path, monkeypatch):
    root = paths.root()
    for folder in ("book", "data/claims", "data/profiles"):
        (tmp_path / folder).mkdir(parents=True)
    wanted = [f"book/{chapter}.py", f"data/profiles/{chapter}.yml", "_toc.yml"]
    for file in (*map(root.joinpath, wanted), *(root / "data/claims").glob("*.yml")):
        shutil.copy(file, tmp_path / file.relative_to(root))
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "cache"))
    notebook = runner.execute(chapter, "paper", 0, "cpu", TINY[chapter])
    manifest = json.loads(notebook.with_suffix(".json").read_text())
    assert manifest["profile"] == "paper" and manifest["overrides"] == TINY[chapter]
    assert len(manifest["claims"]) >= 20, "every claim of the chapter is stated at this profile too"


def test_every_chapter_is_tried():
    assert set(TINY) == set(records.chapters())
