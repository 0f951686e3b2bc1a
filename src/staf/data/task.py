"""The tasks, each a row: which examples of which data set, metric, label set, and whether any expert is trained on the kind.

The nine downstream tasks of the papers (Table 2) come first, on the papers' own corpora; then the same kinds of task on open
data, so that each of the nine can be run today.
"""

from __future__ import annotations

from dataclasses import dataclass

from staf.errors import UnknownName


@dataclass(frozen=True)
class Task:
    """One downstream task."""

    name: str
    title: str
    task_type: str
    """of its examples"""
    datasets: tuple[str, ...]
    fixed_labels: bool = False
    """every item has the same labels, so macro F1 and AUC are defined"""
    unseen: bool = False
    """no expert is trained on this kind"""
    metric: str = "accuracy"
    """accuracy, exact_match, entity_f1, micro_f1, or macro_auc where one label is rare"""
    output_type: str = "multiple_choice"
    """of its answers"""
    top: int | None = None
    """with open labels, only so many, the most frequent ones of what is not test; None keeps all"""
    proxy_for: str = ""
    """the task of Table 2 that it replaces where that one's corpus needs credentials; its own name where it is that task"""


LABEL_COUNTS = (10, 20, 30, 40, 50, 200)
"""ICD coding by the number of labels: Figure 5 of SA-MDKIF, top-50 and top-200 as in the literature; and all."""


def _choice(name: str, title: str, task_type: str, dataset: str, proxy_for: str = "", *, fixed: bool = False) -> Task:
    return Task(name, title, task_type, (dataset,), fixed, proxy_for=proxy_for)


def _span(name: str, title: str, dataset: str) -> Task:
    task_type, metric = "reading_comprehension", "exact_match"
    return Task(name, title, task_type, (dataset,), metric=metric, output_type="span", proxy_for="emrqa")


def _entities(name: str, title: str, dataset: str) -> Task:
    task_type, metric = "named_entity_recognition", "entity_f1"
    return Task(name, title, task_type, (dataset,), metric=metric, output_type="ner", proxy_for="cliner")


def _coding(ending: str, source: str, dataset: str, codes: str = "ICD-9 codes of a stay") -> list[Task]:
    """ICD coding by number of labels, from one source of records."""
    return [
        Task(
            f"icd_coding_{f'top{top}' if top else 'full'}{ending}",
            f"{source}: {codes}, {f'the {top} most frequent' if top else 'all'}",
            "icd_coding",
            (dataset,),
            unseen=True,
            metric="micro_f1",
            output_type="multi_label",
            top=top,
            proxy_for="icd_coding",
        )
        for top in (*LABEL_COUNTS, None)
    ]


def _medication(ending: str, title: str, dataset: str, top: int = 50) -> Task:
    return Task(
        f"medication{ending}",
        title,
        "medication_recommendation",
        (dataset,),
        unseen=True,
        metric="micro_f1",
        output_type="multi_label",
        top=top,
        proxy_for="medication",
    )


def _clinical(ending: str, source: str, dataset: str) -> list[Task]:
    """ICD coding by number of labels, medication recommendation and readmission, from one source of records."""
    title = f"{source}: unplanned readmission within 30 days"
    return [
        *_coding(ending, source, dataset),
        _medication(ending, f"{source}: medications of a stay, the 50 most frequent", dataset),
        Task(f"readmission{ending}", title, "readmission", (dataset,), True, True, "macro_auc", proxy_for="readmission"),
    ]


_ROWS = (
    _span("emrqa", "emrQA: the answer to a question in a clinical note", "emrqa"),
    _choice("medquad", "MedQuAD: the right one of five answers", "multiple_choice", "medquad", "medquad"),
    _choice("pubmedqa", "PubMedQA: yes, no or maybe", "question_answering", "pubmedqa", "pubmedqa", fixed=True),
    _choice("mimicause", "MIMICause: the relation of two events", "relation_extraction", "mimicause", "mimicause", fixed=True),
    _choice(
        "mednli", "MedNLI: entailment in clinical notes", "natural_language_inference", "mednli", "mednli", fixed=True
    ),
    _entities("cliner", "i2b2 2010: problems, tests and treatments", "i2b2-2010"),
    *_clinical("", "MIMIC-III", "mimic-iii"),
    _span("covid_qa", "COVID-QA: the answer to a question in an article", "covid-qa"),
    _span("trial_evidence", "Evidence Inference: the words that show an effect", "evidence-inference"),
    _choice("medqa_usmle", "MedQA (USMLE): the right option", "multiple_choice", "medqa-usmle"),
    _choice("medmcqa", "MedMCQA: the right one of four options", "multiple_choice", "medmcqa"),
    _choice("mmlu_medical", "MMLU, medical subjects: the right one of four options", "multiple_choice", "mmlu-medical"),
    _choice(
        "trial_effect", "Evidence Inference: the effect that a trial found", "natural_language_inference",
        "evidence-inference", "mednli", fixed=True,
    ),
    _choice(
        "question_entailment", "RQE: does one question entail the other", "natural_language_inference", "rqe-amia2016",
        "mednli", fixed=True,
    ),
    _choice(
        "chemical_disease", "BC5CDR: does the chemical induce the disease", "relation_extraction", "bc5cdr", "mimicause",
        fixed=True,
    ),
    _choice(
        "causal_language", "PubMed: the causal claim of a sentence", "relation_extraction", "pubmed-causal-language",
        "mimicause", fixed=True,
    ),
    _entities("ncbi_disease", "NCBI disease: mentions of diseases", "ncbi-disease"),
    _entities("chemicals_and_diseases", "BC5CDR: mentions of chemicals and diseases", "bc5cdr"),
    *_clinical("_demo", "MIMIC-III demo", "mimic-iii-demo"),
    *_clinical("_uci", "UCI Diabetes 130", "uci-diabetes-130"),
    *_coding("_codiesp", "CodiEsp", "codiesp", "ICD-10-CM codes of a case"),
    _medication("_codiesp", "CodiEsp: classes of the drugs of a case, the 20 most frequent", "pharmaconer", 20),
    _choice("hpo_attribute", "HPO: attributes of a phenotype", "entity_attribute", "hpo"),
    _choice("hpo_synonymy", "HPO: the term that another name means", "entity_synonymy", "hpo"),
    _choice("icd10_synonymy", "ICD-10-CM: the title that another name means", "entity_synonymy", "icd-10-cm"),
    _choice("hpo_relation", "HPO: the broader concept of a phenotype", "entity_relation", "hpo"),
    _choice("icd10_relation", "ICD-10-CM: the broader concept of a disease", "entity_relation", "icd-10-cm"),
    Task("icd10_chapter", "ICD-10-CM: the chapter of a disease title", "icd10_chapter", ("icd-10-cm",), True, True),
)  # fmt: skip
TASKS = {task.name: task for task in _ROWS}


def task_metrics() -> dict[str, str]:
    """The metric by which each task is told."""
    return {name: task.metric for name, task in TASKS.items()}


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        UnknownName: with near names and the list.
    """
    if name not in TASKS:
        raise UnknownName.among("task", name, TASKS)
    return TASKS[name]
