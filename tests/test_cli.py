"""The command line on a tiny model and made-up corpora: every step by hand, then the demo; messages and exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from staf.cli import app, main
from staf.cli.printing import Terminal, emit, emit_table
from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.task import find_task
from staf.errors import ConfigError, StafError

TRAIN = ["steps=12", "batch_size=4", "tinit=2", "tfinal=4", "max_length=500", "save_steps=5"]


def changes(pairs: list[str]) -> list[str]:
    return [part for pair in pairs for part in ("-o", pair)]


def run(*arguments: object, code: int = 0) -> str:
    """Run a command and return what it printed on stdout."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=not isinstance(code, int) or code == 2)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def trained(home: Path, tiny_folder: Path, own: Path) -> list[object]:
    """Two experts trained once by the command line; returns the options that all later commands need."""
    base = ["--base", tiny_folder, "--data-dir", own]
    run(
        "train", "--experts", "entity_synonymy,entity_relation", "--out", home / "experts", "--runs", home / "runs",
        "--json", *base, *changes(TRAIN),
    )  # fmt: skip
    return base


def test_every_step_by_hand(home: Path, trained: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    experts, runs = ["--experts", home / "experts"], ["--runs", home / "runs"]
    task = ["--task", "icd10_chapter"]
    for name, more in (("cma", ["max_evaluations=10"]), ("gradient", ["epochs=1"])):
        found = json.loads(
            run("adapt", *task, *experts, "--out", home / name, "--method", name, "--json", *runs, *trained, *changes(more))
        )
        assert set(found["weights"]) == {"entity_relation", "entity_synonymy"}
        assert sum(found["weights"].values()) == pytest.approx(1.0, abs=1e-5)
        assert found["examples"] == (32 if name == "cma" else found["examples"])
    scores = {}
    for label, options in {
        "original": [], "single": [*experts, "--method", "single"], "average": [*experts, "--method", "average"],
        "few_shot": [*experts, "--router", home / "cma"], "normal": [*experts, "--router", home / "gradient"],
    }.items():  # fmt: skip
        result = json.loads(run("evaluate", *task, *options, "--limit", 20, "--json", *runs, *trained))
        assert result["method"] == label
        assert result["metrics"]["accuracy"]["examples"] == 20
        assert (Path(result["run"]) / "result.json").is_file()
        lines = (Path(result["run"]) / "predictions.jsonl").read_text().splitlines()
        assert [set(json.loads(line)) for line in lines] == [{"id", "gold", "scores", "truncated"}] * 20
        scores[label] = result["metrics"]["accuracy"]["value"]
    assert "page:" in run("report", *runs, "--out", home / "report.html")
    page = (home / "report.html").read_text()
    assert "Few-shot router" in page


def test_what_is_printed_of_a_method_says_how_it_learned_and_from_how_many(home: Path, trained: list[object]) -> None:
    experts, task = ["--experts", home / "experts"], ["--task", "icd10_chapter"]
    run("adapt", *task, *experts, "--out", home / "few", "--shots", 5, *trained, *changes(["epochs=1"]))
    assert "Few-shot router (gradient)" in (home / "few" / "weights.svg").read_text()
    common = ["evaluate", *task, "--limit", 6, "--runs", home / "runs", *trained]
    routed = run(*common, *experts, "--router", home / "few")
    assert "Router (gradient), few-shot, 5 examples on icd10_chapter:\n* accuracy" in routed
    assert "/normal/seed" in routed.replace("\n", "")  # where its runs lie stays as it was
    shown = run(*common, "--method", "in_context", "--shots", 20, *changes(["max_length=400"]))
    assert re.search(r"In-context learning \(\d+\.\d of 20 shown\) on icd10_chapter:\n", shown)
    assert run(*common).startswith("Base model on icd10_chapter:\n* accuracy ")


def test_peers_are_scored_by_name(home: Path, tiny_folder: Path, own: Path) -> None:
    base = ["--base", tiny_folder, "--data-dir", own, "--runs", home / "runs", "--limit", 12, "--json"]
    chapter = ["evaluate", "--task", "icd10_chapter", *base]
    learned = json.loads(
        run(*chapter, "--method", "lora", "--shots", 6, "--method-arg", "learning_rates=[0.01]", "--method-arg", "epochs=1")
    )
    assert (learned["method"], learned["setting"], learned["adaptation_examples"]) == ("lora", "few-shot", 6)
    assert learned["tunable_parameters"] == learned["details"]["tunable_parameters"] > 0
    shown = json.loads(run(*chapter, "--method", "in_context", "--shots", 2))
    assert shown["details"]["shots"] == 2
    counted = json.loads(run(*chapter, "--method", "tfidf"))
    assert counted["setting"] == "normal"
    assert counted["metrics"]["accuracy"]["examples"] == 12
    lines = (Path(counted["run"]) / "predictions.jsonl").read_text().splitlines()
    items, answers = home / "items.jsonl", home / "theirs.jsonl"
    run("data", "export", "icd10_chapter", "--limit", 12, "--out", items, "--data-dir", own)
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in lines]
    assert {frozenset(row) for row in rows} == {frozenset({"id", "query", "context", "labels"})}
    assert items.stat().st_mode & 0o077 == 0
    answers.write_text("".join(json.dumps({"id": row["id"], "answer": row["labels"][0]}) + "\n" for row in rows))
    theirs = json.loads(run(*chapter, "--method", "G-BERT", "--predictions", answers))
    assert theirs["method"] == "G-BERT"
    assert 0 <= theirs["metrics"]["accuracy"]["value"] <= 1


def test_answers_that_are_words_are_scored_and_predicted(home: Path, tiny_folder: Path, own: Path) -> None:
    base = ["--base", tiny_folder, "--data-dir", own]
    short = changes(["max_new_tokens=4", "max_length=2000"])
    for task, metric in (("covid_qa", "exact_match"), ("ncbi_disease", "entity_f1")):
        runs = ["--runs", home / "runs", "--limit", 3, "--json"]
        found = json.loads(run("evaluate", "--task", task, *base, *runs, *short))
        assert found["primary_metric"] == metric
        assert 0 <= found["metrics"][metric]["value"] <= 1
    file, out = home / "notes.jsonl", home / "entities.jsonl"
    file.write_text('{"context": "A rash."}\n{"context": "No rash."}\n')
    run("predict", file, "--task", "ncbi_disease", "--out", out, *base)
    assert [set(json.loads(line)) for line in out.read_text().splitlines()] == [{"row", "id", "answer"}] * 2


def test_a_merged_model_loads_without_staf_and_answers_alike(
    home: Path, trained: list[object], tiny_folder: Path, own: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from staf.stages.context import Context
    from staf.stages.evaluation import checked_router

    router, out = home / "fuse-router", home / "fused"
    run("adapt", "--task", "icd10_chapter", "--experts", home / "experts", "--out", router, *trained, *changes(["epochs=1"]))
    run("merge", "--router", router, "--experts", home / "experts", "--out", out, "--base", tiny_folder)
    context = Context(str(tiny_folder), own, home / "runs", dtype="float32")
    found, loaded = checked_router(context, router, home / "experts")
    context.mixture(loaded).set_weights(found.weights)
    ids = torch.randint(1, 250, (2, 30))
    with torch.no_grad():
        expected = context.base.model(input_ids=ids, use_cache=False).logits
        fused = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)(input_ids=ids).logits
    assert (fused - expected).abs().max() < 1e-5
    assert (fused - plain).abs().max() > 1e-4
    assert json.loads((out / "staf.json").read_text())["task"] == "icd10_chapter"
    written = written_files(out)
    merge = ["merge", "--router", router, "--experts", home / "experts", "--out", out, "--base", tiny_folder]
    assert "merged model" in run(*merge)  # the same command once more has nothing to do
    assert written_files(out) == written
    with pytest.raises(StafError, match="exists already"):
        run(*merge, "--dtype", "bfloat16")


def test_training_again_reuses_and_other_settings_train_anew(home: Path, trained: list[object]) -> None:
    common = ["--experts", "entity_relation", "--out", home / "experts", "--runs", home / "runs", "--json", *trained]
    record = home / "experts" / "entity_relation" / "staf.json"
    written = record.stat().st_mtime_ns
    again = json.loads(run("train", *common, *changes(TRAIN)))[0]
    assert record.stat().st_mtime_ns == written
    fresh = json.loads(run("train", *common[:2], "--out", home / "other", *common[4:], *changes([*TRAIN, "seed=3"])))[0]
    assert again["fingerprint"] != fresh["fingerprint"]


def test_what_a_training_would_take_is_printed_and_nothing_is_trained(home: Path, tiny_folder: Path, own: Path) -> None:
    command = [
        "train", "--experts", "entity_relation,entity_synonymy", "--out", home / "dry", "--base", tiny_folder,
        "--data-dir", own, "--runs", home / "dry-runs", "--recipe", "paper", "--dry-run",
        *changes([*TRAIN, "gradient_accumulation_steps=2"]),
    ]  # fmt: skip
    found = json.loads(run(*command, "--json"))
    assert [row["expert"] for row in found] == ["entity_relation", "entity_synonymy"]
    assert found[0]["steps"] == 12
    assert found[0]["total_bytes"] == sum(found[0]["memory"].values())
    table = " ".join(run(*command).split())
    for part in ("base", "factors", "gradients", "optimiser", "importance", "activations", "logits", "in all", "time"):
        assert f" {part} " in table
    assert not (home / "dry").exists()
    assert not (home / "dry-runs").exists()


def test_a_missing_recipe_or_tracker_is_refused_before_anything_is_loaded(
    home: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    command = ["train", "--experts", "entity_relation", "--out", home / "none", "--base", home / "no-base", "--data-dir", own]
    for options, message in (
        (["--recipe", "papr"], "no recipe papr: it is no file"),
        (["--report-to", "wandb"], "pip install wandb"),
        (["--report-to", "board"], "no reporter 'board'"),
    ):
        with pytest.raises(StafError, match=message):
            run(*command, *options)


def test_prediction_streams_resumes_and_names_bad_lines(home: Path, trained: list[object]) -> None:
    file, out = home / "titles.jsonl", home / "answers.jsonl"
    rows = [{"id": f"n{i}", "context": f"ailing hoof {i}"} for i in range(5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["predict", file, "--task", "icd10_chapter", "--out", out, *trained]
    assert "5 answers" in run(*command)
    unsure = [home / "unsure.jsonl" if part == out else part for part in command]
    assert "0 answers" in (said := run(*unsure, "--threshold", 1))
    assert "5 rows abstained, below --threshold 1" in said
    whole = out.read_text()
    answers = [json.loads(line) for line in whole.splitlines()]
    assert out.stat().st_mode & 0o077 == 0
    assert [a["id"] for a in answers] == [row["id"] for row in rows]
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=0.01)
        assert answer["answer"] == max(answer["probabilities"], key=answer["probabilities"].get)
    with pytest.raises(ConfigError, match="other answers: task icd10_chapter there, medmcqa now"):
        run(*["medmcqa" if part == "icd10_chapter" else part for part in command])
    with pytest.raises(ConfigError, match=r"other answers: settings \w+ there, \w+ now"):
        run(*command, "-o", "max_length=600")
    secret = "Mrs Example, born 1950"
    file.write_text(json.dumps({"context": "x"}) + "\n" + json.dumps({"text": secret}) + "\n")
    out.unlink()
    with pytest.raises(StafError, match=r"titles\.jsonl, row 2") as caught:
        run(*command)
    assert secret not in str(caught.value)
    assert not out.exists()
    file.write_text(json.dumps({"context": "x"}) + "\n")
    (home / "answers.jsonl.made-by.json").unlink()
    out.write_text("not ours\n")
    with pytest.raises(ConfigError, match="is not an output of staf predict"):
        run(*command)


def test_a_prediction_with_a_long_query_is_given_more_tokens(home: Path, tiny_folder: Path, own: Path) -> None:
    file, out = home / "stays.jsonl", home / "codes.jsonl"
    file.write_text('{"context": "A stay."}\n')
    command = ["predict", file, "--task", "icd_coding_top50_uci", "--out", out, "--base", tiny_folder, "--data-dir", own]
    with pytest.raises(StafError, match="Raise max_length"):
        run(*command)
    run(*command, *changes(["max_length=2000"]))
    (answer,) = (json.loads(line) for line in out.read_text().splitlines())
    assert len(answer["probabilities"]) > 20
    with pytest.raises(StafError, match="max_lengths is not a setting; did you mean 'max_length'"):
        run(*command, *changes(["max_lengths=2000"]))


def test_the_demo_end_to_end_and_again_for_nothing(home: Path, tiny_folder: Path, tiny_encoder: Path, own: Path) -> None:
    recipe = {
        "experts": ["entity_relation", "entity_synonymy"], "task": "icd10_chapter",
        "expert": {"steps": 6, "batch_size": 4, "tinit": 1, "tfinal": 2, "max_length": 500},
        "few_shot": {"method": "cma", "shots": 8, "max_evaluations": 8}, "normal": {"epochs": 1},
        "evaluation": {"limit": 12}, "held_out": {"limit": 12},
        "classifier": {"encoder": str(tiny_encoder)},
    }  # fmt: skip
    (home / "demo.yaml").write_text(yaml.safe_dump(recipe))
    command = ["demo", "--out", home / "demo", "--recipe", home / "demo.yaml", "--base", tiny_folder, "--data-dir", own]
    table = " ".join(run(*command).split())
    for title in (
        "Majority",
        "Nearest label",
        "Sentence encoder",
        "Base model",
        "Best single expert",
        "Average",
        "Few-shot router",
        "Normal router",
    ):
        assert title in table
    before = written_files(home / "demo")
    again = json.loads(run(*command, "--json"))
    assert before == written_files(home / "demo")
    assert Path(again["page"]).stat().st_size > 10_000
    fused = home / "demo" / "fused" / "icd10_chapter"
    assert (fused / "model.safetensors").is_file()
    first = json.loads((fused / "staf.json").read_text())["router"]
    (home / "demo.yaml").write_text(yaml.safe_dump(recipe | {"normal": {"epochs": 1, "seed": 5}}))
    run(*command, "--json")
    assert json.loads((fused / "staf.json").read_text())["router"] != first  # the model of the old router is not kept


def written_files(folder: Path) -> dict[Path, int]:
    """When each file was written, the page left out: it is made anew from the same results."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.*") if p.is_file() and p.name != "report.html"}


def test_data_commands(own: Path, tiny_folder: Path) -> None:
    rows = json.loads(run("data", "list", "--json", "--data-dir", own))
    needed = {"name", "knowledge_types", "category", "licence", "access", "proxy_for", "available", "size", "steps"}
    assert all(needed <= row.keys() for row in rows)
    assert all(row["available"] for row in rows)
    prepared = json.loads(run("data", "prepare", "hpo", "--json", "--data-dir", own))
    assert prepared["counts"]["entity_relation"]["train"] > 0
    options = ["--data-dir", own, "--base", tiny_folder]
    shown = run("data", "show", "hpo", "--task-type", "entity_relation", *options)
    assert "Query: " in shown
    assert "Answer:" in shown
    assert "prompt tokens" in shown
    found = json.loads(run("data", "show", "hpo", "--count", 2, "--json", *options))
    assert all(row["answer_tokens"] == len(f" {row['answer']}".encode()) for row in found)


def test_what_is_not_test_is_exported_with_its_answers(own: Path, tmp_path: Path) -> None:
    for split in ("train", "adaptation"):
        out = tmp_path / f"{split}.jsonl"
        shown = json.loads(
            run("data", "export", "readmission_uci", "--split", split, "--out", out, "--json", "--data-dir", own)
        )
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        wanted = {e.id: e.answer for e in task_examples(find_task("readmission_uci"), split, DataStore(own))}
        assert {row["id"]: row["answer"] for row in rows} == wanted
        assert shown["examples"] == len(wanted)


def test_data_stats_prints_both_tables_beside_the_papers(own: Path) -> None:
    rows = json.loads(run("data", "stats", "--json", "--data-dir", own))
    emrqa = next(row for row in rows if row["ours"] == "emrqa" and row["table"] == 2)
    assert (emrqa["paper_train"], emrqa["paper_adaptation"], emrqa["paper_test"]) == (4629, 580, 580)
    assert emrqa["train"] + emrqa["adaptation"] + emrqa["test"] > 0
    umls = [row for row in rows if row["paper"] == "UMLS"]
    assert {row["paper_size"] for row in umls} == {15_479}
    assert "Table 2" in run("data", "stats", "--data-dir", own)


def test_preparing_a_task_says_that_nothing_leaks_and_reports_bad_rows(own: Path, tmp_path: Path, tiny_folder: Path) -> None:
    assert "no test item occurs in the training set of an expert" in run(
        "tasks", "validate", "icd10_chapter", "--data-dir", own, "--base", tiny_folder
    )
    folder = tmp_path / "medmcqa"
    folder.mkdir()
    good = (own / "medmcqa" / "Beasts.jsonl").read_text(encoding="utf-8")
    (folder / "Beasts.jsonl").write_text(good + "{\n", encoding="utf-8")
    assert "1 invalid rows skipped" in run("data", "prepare", "medmcqa", "--skip-invalid", "--data-dir", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "fetch", "mednli"], "cannot be fetched by a program"),
        (["data", "prepare", "mednly"], "Did you mean 'mednli'"),
        (["data", "stats", "--splits", "half"], "no split scheme 'half'"),
        (["data", "prepare", "icd10_chapter"], "staf tasks validate icd10_chapter"),
        (["tasks", "validate", "icd10_chaptr"], "Did you mean 'icd10_chapter'"),
        (["tasks", "show", "icd10_chapter", "--split", "tests"], "Did you mean 'test'"),
        (["adapt", "--task", "a", "--experts", "b", "--out", "c", "-o", "seed"], "name=value was expected"),
        (["adapt", "--task", "a", "--experts", "b", "--out", "c", "-o", "seed=[1"], "not valid YAML"),
        (["data", "export", "icd10_chapter", "--split", "tests", "--out", "none.jsonl"], "Did you mean 'test'"),
        (["evaluate", "--task", "icd10_chapter", "--method", "loras"], "Did you mean 'lora'"),
        (["evaluate", "--task", "icd10_chapter", "--method", "lorahub"], "need the experts"),
        (["evaluate", "--task", "icd10_chapter", "--predictions", "none.jsonl", "--method", "lora"], "a name of their own"),
        (["evaluate", "--task", "icd10_chapter", "--method", "lora", "--method-arg", "epoch=2"], "did you mean 'epochs'?"),
        (["evaluate", "--task", "icd10_chapter", "-o", "zzz=2"], "zzz is not a setting. The settings are scoring"),
    ],
)
def test_what_cannot_be_done_says_why(own: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"STAF_DATA": str(own)})
    assert isinstance(result.exception, StafError)
    assert message in str(result.exception)


def test_env_says_the_number_format_and_why() -> None:
    found = json.loads(run("env", "--json"))
    assert found["dtype"] in ("bfloat16", "float32")
    assert "bfloat16" in found["because"] or "AMX" in found["because"]
    assert found["packages"]["torch"]
    assert "dtype" in run("env")
    assert found["data sets"]["mednli"].startswith("credentialed: get it from ")


def commands() -> list[list[str]]:
    return [
        [], ["data"], ["env"], ["data", "list"], ["data", "fetch"], ["data", "prepare"], ["data", "show"],
        ["data", "export"], ["data", "stats"], ["train"], ["adapt"], ["evaluate"], ["merge"], ["predict"], ["report"],
        ["tasks"], ["tasks", "list"], ["tasks", "validate"], ["tasks", "show"],
        ["demo"], ["experts"], ["experts", "list"], ["experts", "add"], ["experts", "remove"], ["experts", "reduce"],
    ]  # fmt: skip


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_help_ends_its_text_with_a_line_to_paste(command: list[str]) -> None:
    text = run(*command, "--help")
    assert "staf " in text.split("Options")[0].replace("Usage: staf", "")


@pytest.mark.parametrize("arguments", [["nothing"], ["train"], ["evaluate"], ["data", "show"], ["env", "--no-such-option"]])
def test_wrong_use_is_exit_code_two(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_fuse_is_an_alias_of_merge() -> None:
    result = CliRunner().invoke(app, ["fuse", "--help"])
    assert result.stdout.split("\n", 2)[2] == run("merge", "--help").split("\n", 2)[2]
    assert result.stderr == "staf fuse is now staf merge.\n"
    assert "fuse" not in run("--help")


@pytest.mark.parametrize("command", ["train", "adapt", "evaluate", "predict"])
def test_settings_are_listed_with_defaults_and_documentation(command: str) -> None:
    lines = [line for line in run(command, "--list-options").splitlines() if line.startswith("  ")]
    assert len(lines) > 5
    undocumented = [line for line in lines if ": " not in line and "seed" not in line]
    assert undocumented == []


def test_the_tasks_are_listed_and_shown(own: Path, tiny_folder: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("tasks", "list", "--json", "--data-dir", own))}
    assert {"emrqa", "icd10_chapter"} <= rows.keys()
    assert min(rows["icd10_chapter"][split] for split in ("adaptation", "test")) > 0
    assert sum(rows["icd10_chapter"]["label_balance"].values()) == pytest.approx(1)
    assert max(rows["icd_coding_top10_uci"]["label_balance"].values()) <= 1
    assert rows["emrqa"]["label_balance"] == {}
    assert "icd10_chapter" in run("tasks", "list", "--data-dir", own)
    shown = json.loads(run("tasks", "show", "icd10_chapter", "--count", 2, "--base", tiny_folder, "--data-dir", own, "--json"))
    assert len(shown) == 2
    assert all(row["split"] == "adaptation" and row["prompt_tokens"] > 0 for row in shown)
    options = ["--base", tiny_folder, "--data-dir", own, "--json"]
    (full,) = json.loads(run("tasks", "show", "emrqa", "--max-length", 4096, *options))
    limit = full["prompt_tokens"] + 64 - 5  # 64 tokens are kept for the answer
    (cut,) = json.loads(run("tasks", "show", "emrqa", "--max-length", limit, *options))
    assert (full["truncated"], cut["truncated"]) == (False, True)
    assert cut["full_prompt_tokens"] == full["prompt_tokens"] > cut["prompt_tokens"]
    assert cut["prompt"].endswith("Answer:")


def test_a_mistake_is_one_message_on_stderr_and_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["staf", "evaluate", "--task", "icd10_chaptr"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "UnknownName: no task 'icd10_chaptr'. Did you mean 'icd10_chapter'" in printed.err
    assert "Traceback" not in printed.err


def test_an_interruption_is_one_line_and_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("staf.env.examine", interrupted)
    result = CliRunner().invoke(app, ["env"])
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted. Re-run the command to resume.\n"


def test_no_name_controls_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x9b1m"
    emit(False, {}, name)
    emit(True, {name: 1})
    emit_table(False, [{name: name}], (), name)
    Terminal().log(name)
    with Terminal().bar(name, 1) as bar:
        bar.advance(1, name)
    printed = capsys.readouterr()
    assert not set("\x1b\x9b") & set(printed.out + printed.err)
    assert printed.out.count("u001b[2J") >= 4


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EISDIR])
def test_a_disk_that_cannot_be_written_is_one_message_whoever_meets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def full() -> None:
        raise OSError(code, os.strerror(code), "merged/model.safetensors")

    monkeypatch.setattr("staf.cli.app", full)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(f"StafError: merged/model.safetensors: {os.strerror(code)}. ")


def test_help_answers_without_torch() -> None:
    heavy = ("torch", "transformers", "pyarrow", "duckdb", "openpyxl", "pooch")
    code = f"import sys; from staf.cli import app; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
