"""Coarse types of medical concepts: MedType's 24, made from the 127 semantic types of the UMLS.

They are the UMLS semantic groups (McCray et al., 2001) with ten types of their own, locations among objects, and clinical
drugs among pharmacologic substances (Vashishth et al., 2021; config/type_remap.json of github.com/svjan5/medtype).
"""

from __future__ import annotations

MEMBERS: dict[str, tuple[str, ...]] = {
    "activities and behaviors": (
        "Activity", "Behavior", "Daily or Recreational Activity", "Event", "Governmental or Regulatory Activity",
        "Individual Behavior", "Machine Activity", "Occupational Activity", "Social Behavior",
    ),
    "anatomy": (
        "Anatomical Structure", "Body Location or Region", "Body Part, Organ, or Organ Component",
        "Body Space or Junction", "Body Substance", "Body System", "Cell", "Cell Component", "Embryonic Structure",
        "Fully Formed Anatomical Structure", "Tissue",
    ),
    "chemicals and drugs": (
        "Amino Acid, Peptide, or Protein", "Antibiotic", "Biologically Active Substance",
        "Biomedical or Dental Material", "Chemical", "Chemical Viewed Functionally", "Chemical Viewed Structurally",
        "Element, Ion, or Isotope", "Enzyme", "Hazardous or Poisonous Substance", "Hormone", "Immunologic Factor",
        "Indicator, Reagent, or Diagnostic Aid", "Inorganic Chemical", "Nucleic Acid, Nucleoside, or Nucleotide",
        "Receptor", "Vitamin",
    ),
    "concepts and ideas": (
        "Classification", "Conceptual Entity", "Group Attribute", "Idea or Concept", "Intellectual Product", "Language",
        "Quantitative Concept", "Regulation or Law", "Spatial Concept", "Temporal Concept",
    ),
    "devices": ("Drug Delivery Device", "Medical Device", "Research Device"),
    "disease or syndrome": ("Disease or Syndrome",),
    "other disorders": (
        "Acquired Abnormality", "Anatomical Abnormality", "Cell or Molecular Dysfunction", "Congenital Abnormality",
        "Experimental Model of Disease", "Injury or Poisoning",
    ),
    "finding": ("Finding",),
    "functional concept": ("Functional Concept",),
    "genes and molecular sequences": (
        "Amino Acid Sequence", "Carbohydrate Sequence", "Gene or Genome", "Molecular Sequence", "Nucleotide Sequence",
    ),
    "living beings": (
        "Age Group", "Amphibian", "Animal", "Archaeon", "Bacterium", "Bird", "Eukaryote", "Family Group", "Fish",
        "Fungus", "Group", "Human", "Mammal", "Organism", "Patient or Disabled Group", "Plant", "Population Group",
        "Professional or Occupational Group", "Reptile", "Vertebrate", "Virus",
    ),
    "mental or behavioral dysfunction": ("Mental or Behavioral Dysfunction",),
    "neoplastic process": ("Neoplastic Process",),
    "objects": ("Entity", "Food", "Geographic Area", "Manufactured Object", "Physical Object", "Substance"),
    "occupations": ("Biomedical Occupation or Discipline", "Occupation or Discipline"),
    "organic chemical": ("Organic Chemical",),
    "organizations": (
        "Health Care Related Organization", "Organization", "Professional Society", "Self-help or Relief Organization",
    ),
    "pathologic function": ("Pathologic Function",),
    "pharmacologic substance": ("Clinical Drug", "Pharmacologic Substance"),
    "phenomena": (
        "Biologic Function", "Environmental Effect of Humans", "Human-caused Phenomenon or Process",
        "Laboratory or Test Result", "Natural Phenomenon or Process", "Phenomenon or Process",
    ),
    "physiology": (
        "Cell Function", "Clinical Attribute", "Genetic Function", "Mental Process", "Molecular Function",
        "Organ or Tissue Function", "Organism Attribute", "Organism Function", "Physiologic Function",
    ),
    "procedures": (
        "Diagnostic Procedure", "Educational Activity", "Health Care Activity", "Laboratory Procedure",
        "Molecular Biology Research Technique", "Research Activity", "Therapeutic or Preventive Procedure",
    ),
    "qualitative concept": ("Qualitative Concept",),
    "sign or symptom": ("Sign or Symptom",),
}  # fmt: skip
"""The semantic types of each coarse type, by the names that MRSTY.RRF gives them."""

COARSE = {fine: coarse for coarse, fines in MEMBERS.items() for fine in fines}
"""The coarse type of each semantic type."""
LABELS = tuple(MEMBERS)
