"""Rows of the catalogue: electronic health records (the unseen tasks)."""

from __future__ import annotations

from staf.data.card import DatasetCard
from staf.data.readers import codiesp, mimic, pharmaconer, uci_diabetes

_TASKS = ("icd_coding", "medication_recommendation", "readmission")

ROWS = (
    DatasetCard(
        name="mimic-iii",
        task_types=_TASKS,
        category="electronic health records",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        access="credentialed",
        proxy_for="MIMIC-III itself",
        source="MIMIC-III Clinical Database v1.4; physionet.org/content/mimiciii/1.4",
        read=mimic.read,
        files=mimic.files,
        size="58,976 admissions of 46,520 patients",
        steps=(
            "1. Make an account at physionet.org and become a credentialed user (Settings > Credentialing). "
            "2. Complete the training that physionet.org/content/mimiciii/1.4 asks for (CITI, 'Data or Specimens Only "
            "Research') and hand in its report. "
            "3. Sign the data use agreement on that page. "
            "4. Download ADMISSIONS, PATIENTS, DIAGNOSES_ICD, D_ICD_DIAGNOSES, PRESCRIPTIONS and NOTEEVENTS (.csv.gz, as "
            "they are). "
            "5. Put them into a folder named mimic-iii in your data folder, and name the data folder by STAF_DATA."
        ),
        sizes={
            "icd_coding": (41_315, 1_500, 1_584),
            "medication_recommendation": (33_225, 1_200, 1_282),
            "readmission": (5_108, 580, 575),
        },
    ),
    DatasetCard(
        name="mimic-iii-demo",
        task_types=_TASKS,
        category="electronic health records",
        licence="Open Data Commons Open Database License 1.0 (ODbL)",
        access="open",
        proxy_for="MIMIC-III",
        source="MIMIC-III Clinical Database Demo v1.4; physionet.org/content/mimiciii-demo/1.4",
        read=mimic.read_demo,
        files=mimic.demo_files,
        size="129 admissions of 100 patients, without notes",
    ),
    DatasetCard(
        name="uci-diabetes-130",
        task_types=_TASKS,
        category="electronic health records",
        licence="CC BY 4.0",
        access="open",
        proxy_for="MIMIC-III",
        source="Diabetes 130-US Hospitals for Years 1999-2008, UCI Machine Learning Repository 296; doi.org/10.24432/C5230J",
        read=uci_diabetes.read,
        files=uci_diabetes.files,
        size="101,766 encounters of 71,518 patients, without free text",
    ),
    DatasetCard(
        name="codiesp",
        task_types=("icd_coding",),
        category="electronic health records",
        licence="CC BY 4.0",
        access="open",
        proxy_for="MIMIC-III",
        source="CodiEsp, final version 4 (CLEF eHealth 2020; Miranda-Escalada et al.); doi.org/10.5281/zenodo.3837305",
        read=codiesp.read,
        files=codiesp.files,
        size="1,000 case reports in machine-translated English, with 11,158 ICD-10-CM codes",
        own_split=True,
    ),
    DatasetCard(
        name="pharmaconer",
        task_types=("medication_recommendation",),
        category="electronic health records",
        licence="CC BY 4.0",
        access="open",
        proxy_for="MIMIC-III",
        source="PharmaCoNER (BioNLP-OST 2019; Gonzalez-Agirre et al.), train and dev, over CodiEsp's texts; "
        "github.com/racai-ai/PharmacoNER2019",
        read=pharmaconer.read,
        files=pharmaconer.files,
        size="750 case reports with 5,748 mentions of substances; the texts are those of codiesp",
        own_split=True,
    ),
)
