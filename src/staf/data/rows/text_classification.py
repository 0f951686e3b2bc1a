"""Rows of the catalogue: text classification (MLDC, NLI), and one on sentences that stands for a corpus of relations."""

from __future__ import annotations

from staf.data.card import DatasetCard
from staf.data.readers import causal_language, evidence_inference, hallmarks, mednli, question_entailment, wikimed

ROWS = (
    DatasetCard(
        name="hallmarks-of-cancer",
        task_types=("document_classification",),
        category="text classification",
        licence="GPL-3.0",
        access="open",
        proxy_for="WikiMed",
        source="Hallmarks of Cancer corpus; github.com/sb895/Hallmarks-of-Cancer, commit 3bc6e6d",
        size="1,852 abstracts",
        read=hallmarks.read,
        files=hallmarks.files,
    ),
    DatasetCard(
        name="wikimed",
        task_types=("document_classification",),
        category="text classification",
        licence="CC BY-SA 3.0 for the text of Wikipedia; the UMLS licence for the semantic types",
        access="credentialed",
        proxy_for="WikiMed itself",
        source="WikiMed 1.0.1, doi 10.5281/zenodo.5755155, with MRSTY.RRF of a UMLS release",
        size="393,618 pages",
        read=wikimed.read,
        files=wikimed.files,
        own_split=True,
        steps=(
            "1. Download WikiMed (not PubMedDS) from https://zenodo.org/record/5755155; anyone may. Unpack it.\n"
            "2. Put WikiMed.json into a folder 'wikimed' in your data folder.\n"
            "3. WikiMed names concepts, and their types stand in the UMLS: ask for a UMLS licence at\n"
            "   https://uts.nlm.nih.gov/uts/signup-login (free of charge, some days), then download a release of the\n"
            "   Metathesaurus from https://www.nlm.nih.gov/research/umls/licensedcontent/umlsknowledgesources.html.\n"
            "4. Put its file META/MRSTY.RRF beside WikiMed.json."
        ),
    ),
    DatasetCard(
        name="rqe-amia2016",
        task_types=("natural_language_inference",),
        category="text classification",
        licence="CC BY 4.0",
        access="open",
        proxy_for="MedNLI",
        source="Recognizing Question Entailment, AMIA 2016; github.com/abachaa/RQE_Data_AMIA2016, commit 9302fb9",
        size="8,890 pairs",
        read=question_entailment.read,
        files=question_entailment.files,
        own_split=True,
    ),
    DatasetCard(
        name="mednli",
        task_types=("natural_language_inference",),
        category="text classification",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        access="credentialed",
        proxy_for="MedNLI itself",
        source="MedNLI 1.0.0, doi 10.13026/C2RS98; physionet.org/content/mednli",
        size="14,049 pairs",
        read=mednli.read,
        files=mednli.files,
        own_split=True,
        sizes={"natural_language_inference": (1138, 142, 142)},
        steps=(
            "1. Become a credentialed user of PhysioNet: https://physionet.org/settings/credentialing (with the course\n"
            "   'Data or Specimens Only Research' of CITI).\n"
            "2. Sign the data use agreement at https://physionet.org/content/mednli/1.0.0/ and download the files there.\n"
            "3. Put mli_train_v1.jsonl, mli_dev_v1.jsonl and mli_test_v1.jsonl into a folder 'mednli' in your data folder."
        ),
    ),
    DatasetCard(
        name="evidence-inference",
        task_types=("natural_language_inference", "reading_comprehension"),
        category="text classification",
        licence="MIT",
        access="open",
        proxy_for="MedNLI (effects), emrQA and CliCR (evidence)",
        source="Evidence Inference 2.0; github.com/jayded/evidence-inference, annotations/, commit b9831b6",
        size="2,444 prompts on 915 articles",
        read=evidence_inference.read,
        files=evidence_inference.files,
        steps=(
            "1. git clone https://github.com/jayded/evidence-inference && git -C evidence-inference checkout "
            "b9831b6c59b52ac2d277f757d413ececf0949a8d\n"
            "2. Put annotations/v2_annotations.csv, annotations/prompts_merged.csv and annotations/splits/ into a folder "
            "'evidence-inference' in your data folder.\n"
            "3. There: tar -czf txt_files.tar.gz -C CLONE/annotations txt_files, with CLONE the folder of step 1."
        ),
        own_split=True,
    ),
    DatasetCard(
        name="pubmed-causal-language",
        task_types=("relation_extraction",),
        category="sequence labeling",
        licence="GPL-3.0",
        access="open",
        proxy_for="MIMIC-Cause",
        source="Causal language in science findings; github.com/junwang4/causal-language-use-in-science, commit 7ca243a",
        size="3,061 sentences",
        read=causal_language.read,
        files=causal_language.files,
    ),
)
