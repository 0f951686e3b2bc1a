"""Rows of the catalogue: sequence to sequence (MC, TS), and the table of diseases that comes with ChatDoctor."""

from __future__ import annotations

from staf.data.card import DatasetCard
from staf.data.readers import aci_bench, chatdoctor, meqsum, mts_dialog

ROWS = (
    DatasetCard(
        name="healthcaremagic",
        task_types=("medical_conversation",),
        category="sequence to sequence",
        licence="none stated for the file; its authors allow academic research only, no commercial or clinical use",
        access="credentialed",
        proxy_for="HealthCareMagic itself",
        source="HealthCareMagic-100k, as distributed by the authors of ChatDoctor; github.com/Kent0n-Li/ChatDoctor",
        size="112,165 dialogues",
        read=chatdoctor.healthcaremagic,
        files=chatdoctor.healthcaremagic_files,
        steps=(
            "1. Open github.com/Kent0n-Li/ChatDoctor and read its README, sections 'ChatDoctor Dataset' and 'Limitations': "
            "for academic research only, any commercial or clinical use is prohibited. "
            "2. If you accept that, follow the link 'HealthCareMagic-100k' in the README (a file on Google Drive) and download "
            "HealthCareMagic-100k.json. "
            "3. Put it into the folder 'healthcaremagic' of your data folder (STAF_DATA)."
        ),
    ),
    DatasetCard(
        name="chatdoctor",
        task_types=("medical_conversation", "entity_attribute", "entity_relation"),
        category="sequence to sequence",
        licence="Apache-2.0; README: academic research only, no commercial or clinical use",
        access="open",
        proxy_for="HealthCareMagic (dialogues), UMLS (table of diseases)",
        source="ChatDoctor: dialogues by ChatGPT, table of diseases; github.com/Kent0n-Li/ChatDoctor, commit e77bd7e",
        size="5,452 dialogues, 796 diseases",
        read=chatdoctor.read,
        files=chatdoctor.files,
    ),
    DatasetCard(
        name="mts-dialog",
        task_types=("summarization", "medical_conversation"),
        category="sequence to sequence",
        licence="CC BY 4.0",
        access="open",
        proxy_for="HealthCareMagic, MeQSum",
        source="MTS-Dialog, main data set; github.com/abachaa/MTS-Dialog, commit 3ff0801",
        size="1,701 conversations with sections of notes",
        read=mts_dialog.read,
        files=mts_dialog.files,
        own_split=True,
    ),
    DatasetCard(
        name="aci-bench",
        task_types=("summarization", "medical_conversation"),
        category="sequence to sequence",
        licence="CC BY 4.0",
        access="open",
        proxy_for="HealthCareMagic, MeQSum",
        source="ACI-BENCH, data of the challenges; github.com/wyim/aci-bench, commit b909b2b",
        size="207 visits with notes",
        read=aci_bench.read,
        files=aci_bench.files,
        own_split=True,
    ),
    DatasetCard(
        name="meqsum",
        task_types=("summarization",),
        category="sequence to sequence",
        licence="CC BY 4.0",
        access="open",
        proxy_for="MeQSum itself (the paper has 2,333 pairs, its authors publish 1,000)",
        source="MeQSum; github.com/abachaa/MeQSum, commit 51e36cf",
        size="1,000 questions with summaries",
        read=meqsum.read,
        files=meqsum.files,
    ),
)
