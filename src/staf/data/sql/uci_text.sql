-- What an encounter's columns say, as mentions: (topic, mention), known at admission or not.
--
-- Known at admission: the patient, the kind of admission, and the visits of the year before. Not: whatever the hospital did
-- or counted during the stay, its diagnoses, its drugs, and what happened at discharge.
-- 'None' as a laboratory result means not measured.

CREATE MACRO spaced(words) AS lower(regexp_replace(words, '([a-z])([A-Z])', '\1 \2', 'g'));

CREATE MACRO decade(cell) AS replace(trim(cell, '[)'), '-', ' to ');

CREATE VIEW told_encounters AS
SELECT
    encounter_id,
    patient_nbr::BIGINT AS patient_nbr,
    codes,
    list_transform(codes, lambda code: coalesce(title_of[code], '')) AS titles,
    drugs,
    CASE WHEN gone THEN NULL WHEN readmitted = '<30' THEN 'yes' ELSE 'no' END AS returned,
    [
        {'topic': 'Patient', 'mention': decade(age) || ' years old'},
        {'topic': 'Patient', 'mention': CASE WHEN gender IN ('Female', 'Male') THEN lower(gender) END},
        {'topic': 'Patient', 'mention': spaced(known(race))},
        {'topic': 'Patient', 'mention': decade(known(weight)) || ' pounds'},
        {'topic': 'Admission', 'mention': kinds.description},
        {'topic': 'Admission', 'mention': 'source: ' || origins.description},
        {'topic': 'Specialty of the admitting physician', 'mention': spaced(known(medical_specialty))},
        {'topic': 'Payer', 'mention': 'code ' || known(payer_code)},
        {'topic': 'Visits in the year before', 'mention': number_outpatient || ' as an outpatient'},
        {'topic': 'Visits in the year before', 'mention': number_emergency || ' in an emergency room'},
        {'topic': 'Visits in the year before', 'mention': number_inpatient || ' as an inpatient'}
    ] AS at_admission,
    [
        {'topic': 'Stay', 'mention': time_in_hospital || ' days'},
        {'topic': 'Stay', 'mention': num_lab_procedures || ' laboratory tests'},
        {'topic': 'Stay', 'mention': num_procedures || ' other procedures'},
        {'topic': 'Stay', 'mention': num_medications || ' medications'},
        {'topic': 'Stay', 'mention': number_diagnoses || ' diagnoses'},
        {'topic': 'Laboratory', 'mention': CASE max_glu_serum
            WHEN 'None' THEN 'glucose not measured' WHEN 'Norm' THEN 'glucose normal'
            ELSE 'glucose over ' || trim(known(max_glu_serum), '>') || ' mg/dL' END},
        {'topic': 'Laboratory', 'mention': CASE a1cresult
            WHEN 'None' THEN 'hemoglobin A1c not measured' WHEN 'Norm' THEN 'hemoglobin A1c normal'
            ELSE 'hemoglobin A1c over ' || trim(known(a1cresult), '>') || ' percent' END}
    ] AS stay,
    list_transform(doses, lambda dose: {'topic': 'Diabetes drugs', 'mention': dose})
        || [{'topic': 'Diabetes drugs', 'mention': CASE "change" WHEN 'Ch' THEN 'changed during the stay' ELSE 'unchanged' END}]
        AS given,
    list_transform(codes, lambda code: {'topic': 'Diagnoses', 'mention': coalesce(title_of[code], 'code ' || code)}) AS diagnoses,
    [{'topic': 'Discharge', 'mention': endings.description}] AS discharge
FROM encounters
CROSS JOIN (SELECT map(list(code), list(title)) AS title_of FROM titles)
LEFT JOIN id_names AS kinds ON kinds.column_name = 'admission_type_id' AND kinds.id = admission_type_id
LEFT JOIN id_names AS origins ON origins.column_name = 'admission_source_id' AND origins.id = admission_source_id
LEFT JOIN id_names AS endings ON endings.column_name = 'discharge_disposition_id' AND endings.id = discharge_disposition_id
ORDER BY encounter_id;
