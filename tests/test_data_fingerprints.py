"""The examples of every reader on our own corpora stay the same: a change of a hash must be meant, and named in its commit."""

from __future__ import annotations

import hashlib
import json

import pytest

from staf.data.card import builtin_cards
from staf.data.read_report import ReadReport

FINGERPRINTS = {
    "medquad": (323, "a35095f28afd"),
    "medmcqa": (80, "a1856c27ee1c"),
    "medqa-usmle": (13, "c26549df5001"),
    "mmlu-medical": (37, "014f1cd59d73"),
    "pubmedqa": (59, "8e7a17ffcbc2"),
    "hallmarks-of-cancer": (80, "db46e83c9d5b"),
    "wikimed": (30, "8faf00704802"),
    "rqe-amia2016": (86, "c332b455787a"),
    "mednli": (36, "a3b95c9bc270"),
    "evidence-inference": (48, "447542ab0444"),
    "pubmed-causal-language": (80, "ab380b8311eb"),
    "ncbi-disease": (24, "846ea4ab5122"),
    "bc5cdr": (216, "dbc7e1d4c278"),
    "covid-qa": (80, "cedd7ec192d4"),
    "i2b2-2010": (120, "31bf3d60ab71"),
    "emrqa": (70, "de5161f7244d"),
    "clicr": (24, "5a6df63e3396"),
    "mimicause": (80, "bbe882be986c"),
    "conll-2003": (24, "59eec9503da8"),
    "healthcaremagic": (40, "65af30bec59e"),
    "chatdoctor": (640, "b146c0d7709f"),
    "mts-dialog": (63, "6804d8ef8f4a"),
    "aci-bench": (72, "c7c9a1fc6832"),
    "meqsum": (40, "cc96611abdb4"),
    "hpo": (780, "ef84787fc29a"),
    "icd-10-cm": (1160, "390b63315318"),
    "disease-ontology": (660, "9896d5324e97"),
    "pharmacotherapydb": (120, "428abbbf44b8"),
    "umls": (1514, "b4864e68c20f"),
    "mimic-iii": (240, "d7275a0e69e9"),
    "mimic-iii-demo": (240, "66b4869937b1"),
    "uci-diabetes-130": (240, "f15208438d0a"),
    "codiesp": (80, "212143d1aa8c"),
    "pharmaconer": (80, "1f70481ee9b5"),
}
"""Number of examples, and the first digits of a SHA-256 over their contents, by data set."""


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_the_examples_of_a_reader_stay_the_same(own, name):
    digest, count = hashlib.sha256(), 0
    for example in builtin_cards()[name].read(own / name, ReadReport()):
        count += 1
        parts = [example.id, example.task_type, example.query, example.context, example.answer, list(example.labels)]
        parts += [example.split, list(example.dedup_keys), example.group]
        digest.update(json.dumps(parts).encode())
    assert (count, digest.hexdigest()[:12]) == FINGERPRINTS[name]
