"""How each kind of example is asked for: one family of queries a kind, several phrasings of each query.

Figure 3 of STAF-LLM shows one query of each category; its families are not printed, so these are ours. A phrasing is drawn
by the example's id, so that it repeats. `{options}` is replaced by all valid labels, in their order, parted by '; '.
"""

from __future__ import annotations

from collections.abc import Sequence

from staf.data.splits import dice

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "question_answering": {
        "abstract": (
            "Answer the research question from the abstract with yes, no or maybe.",
            "Does the abstract answer the research question with yes, no or maybe?",
            "From the abstract, answer the question: yes, no or maybe.",
        ),
        "conclusion": (
            "Answer the research question from the abstract in one or two sentences.",
            "What does the abstract conclude on the research question?",
            "Give the answer that the abstract leads to.",
        ),
        "open": (
            "Answer the medical question.",
            "Give a full answer to the question about health.",
            "Explain the answer to the question to a reader without medical training.",
        ),
    },
    "multiple_choice": {
        "options": (
            "Choose the right answer to the question from the options: {options}.",
            "Answer the question with one of the options: {options}.",
            "Which of the options answers the question: {options}?",
        ),
        "passage": (
            "Choose the passage that answers the question from the options: {options}",
            "Which of the passages answers the question: {options}",
            "Answer the question with one of the passages: {options}",
        ),
    },
    "medical_conversation": {
        "reply": (
            "Answer the patient as a doctor.",
            "What would a doctor say to this patient?",
            "Give the doctor's reply to the patient.",
        ),
        "turn": (
            "Go on with the conversation: give the doctor's next words.",
            "What does the doctor say next?",
            "Give the next thing that the doctor says.",
        ),
    },
    "document_classification": {
        "hallmarks": (
            "Name all hallmarks of cancer that the abstract is about, or none: {options}.",
            "Which hallmarks of cancer does the abstract give evidence of, if any: {options}?",
            "Choose every hallmark of cancer that fits the abstract, or none: {options}.",
        ),
        "semantic_types": (
            "Name all types of medical concepts that the document mentions, or none: {options}.",
            "Which types of medical concepts are mentioned, if any: {options}?",
            "Choose every type of concept that occurs in the document, or none: {options}.",
        ),
    },
    "reading_comprehension": {
        "question": (
            "Answer the question in the words of the text.",
            "Find the answer to the question in the text.",
            "Which words of the text answer the question?",
        ),
        "evidence": (
            "Give the words of the report that show the effect of the intervention on the outcome.",
            "Which words of the report tell how the intervention changed the outcome?",
            "Find the evidence in the report for the effect on the outcome.",
        ),
        "blank": (
            "Fill the blank in the statement in the words of the text.",
            "Which words of the text belong in the place of the blank?",
            "Find in the text what the blank stands for.",
        ),
    },
    "natural_language_inference": {
        "sentences": (
            "Determine the relationship between the two sentences: {options}.",
            "What follows for the second sentence from the first: {options}?",
            "Decide what the premise says of the hypothesis: {options}.",
        ),
        "questions": (
            "Does an answer to the second question also answer the first, at least in part: {options}?",
            "Decide whether the first question entails the second: {options}.",
            "Does the long question contain the short one: {options}?",
        ),
        "effect": (
            "Determine from the evidence how the intervention changed the outcome, beside the comparator: {options}.",
            "What does the evidence say of the outcome under the intervention: {options}?",
            "Choose what the intervention did to the outcome according to the evidence: {options}.",
        ),
    },
    "summarization": {
        "question": (
            "Summarize the patient's message as one short question.",
            "What does the writer want to know, in one short question?",
            "Shorten the message to the question that it asks.",
        ),
        "section": (
            "Write the section of the clinical note that the conversation gives.",
            "Summarize the conversation as a section of a clinical note.",
            "Turn the conversation into the text of the note's section.",
        ),
        "note": (
            "Write the clinical note of the visit.",
            "Summarize the conversation as a full clinical note.",
            "Turn the conversation into a clinical note with its sections.",
        ),
    },
    "named_entity_recognition": {
        "entities": (
            "List every mention in the text of these types, as type and words, or none: {options}.",
            "Which words of the text name something of these types, if any: {options}?",
            "Find all mentions in the text, in order, or none; the types are: {options}.",
        ),
    },
    "relation_extraction": {
        "pair": (
            "Determine the relation between the two entities in the text: {options}.",
            "According to the text, which relation holds: {options}?",
            "Choose the relation that the text states between the two: {options}.",
        ),
        "sentence": (
            "Determine what kind of causal claim the sentence makes: {options}.",
            "Which claim does the sentence make: {options}?",
            "Choose the kind of relation that the sentence states: {options}.",
        ),
    },
    "entity_attribute": {
        "system": (
            "Name the organ system that the phenotype belongs to: {options}.",
            "Which organ system is affected: {options}?",
            "Choose the organ system of the phenotype from the options: {options}.",
        ),
        "definition": (
            "Name the phenotype that the definition describes: {options}.",
            "Which phenotype is defined here: {options}?",
            "Choose the phenotype that fits the definition from the options: {options}.",
        ),
        "defined": (
            "Name the concept that the definition describes: {options}.",
            "Which concept is defined here: {options}?",
            "Choose the concept that fits the definition from the options: {options}.",
        ),
        "define": (
            "Define the medical concept.",
            "Explain what the medical concept is.",
            "Give the definition of the concept.",
        ),
        "semantic_type": (
            "Name the semantic type of the medical concept: {options}.",
            "Of which type is the concept: {options}?",
            "Choose the type of the concept from the options: {options}.",
        ),
    },
    "entity_synonymy": {
        "synonym": (
            "Which of the options means the same as the term: {options}?",
            "Choose the synonym of the term from the options: {options}.",
            "Name the same concept by its other name: {options}.",
        ),
    },
    "entity_relation": {
        "phenotype": (
            "Choose the broader concept of the phenotype from the options: {options}.",
            "Which of the options is the phenotype a kind of: {options}?",
            "Name the more general phenotype: {options}.",
        ),
        "diagnosis": (
            "Choose the broader concept of the diagnosis from the options: {options}.",
            "Which of the options is the diagnosis a kind of: {options}?",
            "Name the more general diagnosis: {options}.",
        ),
        "broader": (
            "Choose the broader concept of the disease from the options: {options}.",
            "Which of the options is the disease a kind of: {options}?",
            "Name the more general disease: {options}.",
        ),
        "between": (
            "Determine the relation between the two medical concepts: {options}.",
            "Which relation holds between the two concepts: {options}?",
            "Choose the relation of the first concept to the second: {options}.",
        ),
        "finding": (
            "Choose the finding that goes with the disease from the options: {options}.",
            "Which of the options is a sign or symptom of the disease: {options}?",
            "Name the finding that patients with the disease have: {options}.",
        ),
        "treatment": (
            "Choose the medication that is used for the disease from the options: {options}.",
            "Which of the options is given for the disease: {options}?",
            "Name the drug for the disease: {options}.",
        ),
    },
    "icd10_chapter": {
        "chapter": ("Name the chapter of the classification of diseases that the diagnosis belongs to: {options}.",),
    },
    "icd_coding": {
        "codes": (
            "Name all diagnoses of the stay that are to be coded, or none: {options}.",
            "Which ICD-9 diagnoses does the record support, if any: {options}?",
            "Choose every ICD-9 code that the record calls for, or none: {options}.",
        ),
        "all": (
            "List the ICD-9 codes of all diagnoses of the stay.",
            "Which ICD-9 diagnosis codes does the record call for?",
            "Code all diagnoses of the stay in ICD-9.",
        ),
        "icd10_codes": (
            "Name all diagnoses of the case that are to be coded, or none: {options}.",
            "Which ICD-10-CM diagnoses does the case report support, if any: {options}?",
            "Choose every ICD-10-CM code that the case report calls for, or none: {options}.",
        ),
        "icd10_all": (
            "List the ICD-10-CM codes of all diagnoses of the case.",
            "Which ICD-10-CM diagnosis codes does the case report call for?",
            "Code all diagnoses of the case in ICD-10-CM.",
        ),
    },
    "medication_recommendation": {
        "drugs": (
            "Recommend the medications for this stay, or none: {options}.",
            "Which medications will the patient need in this stay, if any: {options}?",
            "Choose every medication to be given in this stay, or none: {options}.",
        ),
        "all": (
            "Recommend the medications for this stay.",
            "Which medications will the patient need in this stay?",
            "List the medications to be given in this stay.",
        ),
        "classes": (
            "Recommend classes of drugs for the patient, or none: {options}.",
            "Which classes of drugs will the patient be given, if any: {options}?",
            "Choose every class of drugs that the case calls for, or none: {options}.",
        ),
        "all_classes": (
            "Recommend classes of drugs for the patient.",
            "Which classes of drugs will the patient be given?",
            "List the classes of drugs that the case calls for.",
        ),
    },
    "readmission": {
        "thirty_days": (
            "Will the patient be back in hospital, unplanned, within 30 days of discharge: {options}?",
            "Predict an unplanned readmission within 30 days: {options}.",
            "Is the patient readmitted within 30 days without a plan: {options}?",
        ),
    },
}
"""Phrasings by kind, then by what is asked."""


def query(task_type: str, asked: str, example_id: str, options: Sequence[str] = ()) -> str:
    """One phrasing of a query, drawn by the example's id, with all options in it."""
    template = dice(f"phrasing:{example_id}").choice(TEMPLATES[task_type][asked])
    return template.replace("{options}", "; ".join(options))
