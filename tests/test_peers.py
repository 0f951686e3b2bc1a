"""Peers as steps on folders: a search is done once for all seeds, what is finished is read, nothing sees a test item."""

from __future__ import annotations

from pathlib import Path

import pytest

from staf.baselines.tuning import Choice, Tuning
from staf.config import BaselineSettings, ClassifierSettings, EvaluationSettings
from staf.errors import ConfigError
from staf.progress import Silence
from staf.tasks.rows import find_task
from staf.workflow import Session, baseline_stage, classifier_stage, outside_stage

EVALUATION = EvaluationSettings(limit=4, max_tokens=900, resamples=100)
TASK = find_task("icd10_chapter")


@pytest.fixture
def session(tiny_folder: Path, own: Path, tmp_path: Path) -> Session:
    return Session(str(tiny_folder), own, tmp_path / "runs", Silence(), "float32")


def lora(seed: int, **changed: object) -> BaselineSettings:
    wanted = {"method": "lora", "shots": 4, "epochs": 1, "learning_rates": (0.01, 0.02), "seed": seed}
    return BaselineSettings.model_validate({**wanted, **changed})


def test_one_search_serves_all_seeds_and_is_part_of_what_each_cost(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    choose = Tuning.choose

    def watched(self: Tuning, on_trial: object = None) -> Choice:
        searched.append(self.settings.seed)
        return choose(self)

    monkeypatch.setattr(Tuning, "choose", watched)
    results = [baseline_stage(session, TASK, lora(seed), EVALUATION, search_seed=0)[0] for seed in (0, 1)]
    assert searched == [0]
    assert [len(result["details"]["trials"]) for result in results] == [2, 2]
    assert results[0]["details"]["learning_rate"] == results[1]["details"]["learning_rate"]
    sought = sum(trial["seconds"] for trial in results[1]["details"]["trials"])
    assert results[1]["seconds"] - results[1]["seconds_of_predicting"] > sought
    baseline_stage(session, TASK, lora(2), EVALUATION)
    assert searched == [0, 2]


def test_what_is_finished_is_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = baseline_stage(session, TASK, lora(0), EVALUATION)[1].result()
    counted = classifier_stage(session, TASK, "logistic", 8, ClassifierSettings(), EVALUATION)[1].result()
    assert counted is not None
    monkeypatch.setattr(Tuning, "fit", None)
    monkeypatch.setattr("staf.workflow.peers.classify", None)
    assert baseline_stage(session, TASK, lora(0), EVALUATION)[0] == first
    assert classifier_stage(session, TASK, "logistic", 8, ClassifierSettings(), EVALUATION)[0] == counted
    assert counted["setting"] == "few-shot"


def test_another_system_needs_a_name_of_its_own(session: Session, tmp_path: Path) -> None:
    for name in ("", "lora", "average", "logistic"):
        with pytest.raises(ConfigError, match="a name of their own"):
            outside_stage(session, TASK, name, tmp_path / "none.jsonl", EVALUATION)
