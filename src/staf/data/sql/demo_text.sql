-- What the tables of a stay say, as short mentions; the demo of MIMIC-III has no notes, so its text is made of these.
--
--   topic             what the mentions of one sentence are about; topics stand in this order
--   at_admission      known when the patient arrives: all that medication recommendation may use
--   tells_diagnosis   names diagnoses: not for ICD coding
--
-- Nothing after discharge is mentioned. Readmission may use everything.

CREATE TABLE mentions (
    hadm_id BIGINT, place INTEGER, topic VARCHAR, at_admission BOOLEAN, tells_diagnosis BOOLEAN, rank BIGINT, mention VARCHAR
);

-- Dates of birth of patients over 89 are moved back by about 300 years.
INSERT INTO mentions
SELECT hadm_id, 1, 'Patient', true, false, rank, mention
FROM (
    SELECT
        hadm_id,
        unnest([1, 2]) AS rank,
        unnest([
            CASE
                WHEN date_sub('year', dob::TIMESTAMP, admitted) > 89 THEN 'over 89 years old'
                ELSE date_sub('year', dob::TIMESTAMP, admitted) || ' years old'
            END,
            CASE gender WHEN 'F' THEN 'female' WHEN 'M' THEN 'male' END
        ]) AS mention
    FROM stays
    JOIN patients ON patients.subject_id::BIGINT = stays.subject_id
);

INSERT INTO mentions
SELECT hadm_id, 2, 'Admission', true, false, unnest([1, 2]), lower(unnest([admission_type, admission_location]))
FROM stays;

INSERT INTO mentions
SELECT hadm_id::BIGINT, 3, 'Reason for admission', true, true, 1, lower(diagnosis)
FROM admissions;

-- Earlier stays: ended before this one began. Their drugs are not mentioned: those that are given again would have to be
-- left out, and the rest would then tell the answer by what is missing.
CREATE TABLE earlier AS
SELECT later.hadm_id, stays.hadm_id AS before, stays.discharged, later.admitted
FROM stays AS later
JOIN stays ON stays.subject_id = later.subject_id AND stays.discharged <= later.admitted AND stays.hadm_id <> later.hadm_id;

INSERT INTO mentions
SELECT
    hadm_id, 4, 'Earlier stays', true, false, 1,
    count(*) || ' in all, the last one ended ' || min(date_diff('day', discharged::DATE, admitted::DATE)) || ' days before'
FROM earlier
GROUP BY hadm_id;

INSERT INTO mentions
SELECT DISTINCT earlier.hadm_id, 5, 'Diagnoses of earlier stays', true, true, 1, lower(title)
FROM earlier
JOIN codes ON codes.hadm_id = before
JOIN titles USING (code);

-- The service that takes the patient in is known at admission; later ones are not.
INSERT INTO mentions
SELECT
    hadm_id::BIGINT, CASE place WHEN 1 THEN 6 ELSE 7 END, CASE place WHEN 1 THEN 'Service' ELSE 'Later services' END,
    place = 1, false, place, coalesce(name, lower(curr_service))
FROM (
    SELECT *, row_number() OVER (PARTITION BY hadm_id ORDER BY transfertime, row_id::BIGINT) AS place
    FROM services
)
-- https://mimic.mit.edu/docs/iii/tables/services/
LEFT JOIN (VALUES
    ('CMED', 'cardiac medical'), ('CSURG', 'cardiac surgery'), ('DENT', 'dental'), ('ENT', 'ear, nose and throat'),
    ('GU', 'genitourinary'), ('GYN', 'gynecological'), ('MED', 'general medical'), ('NB', 'newborn'),
    ('NBB', 'newborn baby'), ('NMED', 'neurologic medical'), ('NSURG', 'neurologic surgical'), ('OBS', 'obstetrics'),
    ('OMED', 'orthopaedic medicine'), ('ORTHO', 'orthopaedic surgical'), ('PSURG', 'plastic surgery'),
    ('PSYCH', 'psychiatric'), ('SURG', 'general surgical'), ('TRAUM', 'trauma'), ('TSURG', 'thoracic surgical'),
    ('VSURG', 'vascular surgical')
) AS named (code, name) ON code = curr_service;

INSERT INTO mentions
SELECT
    hadm_id::BIGINT, 8, 'Intensive care', false, false, row_number() OVER (PARTITION BY hadm_id ORDER BY intime),
    coalesce(name, lower(first_careunit)) || coalesce(' for ' || round(try_cast(los AS DOUBLE), 1) || ' days', '')
FROM icustays
LEFT JOIN (VALUES
    ('CCU', 'coronary care unit'), ('CSRU', 'cardiac surgery recovery unit'), ('MICU', 'medical intensive care unit'),
    ('NICU', 'neonatal intensive care unit'), ('NWARD', 'neonatal ward'), ('SICU', 'surgical intensive care unit'),
    ('TSICU', 'trauma and surgical intensive care unit')
) AS named (code, name) ON code = first_careunit;

INSERT INTO mentions
SELECT
    hadm_id::BIGINT, 9, 'Procedures', false, false, min(try_cast(seq_num AS BIGINT)),
    lower(coalesce(min(long_title), 'procedure ' || procedures_icd.icd9_code))
FROM procedures_icd
LEFT JOIN d_icd_procedures USING (icd9_code)
GROUP BY hadm_id, procedures_icd.icd9_code;

INSERT INTO mentions
SELECT DISTINCT
    hadm_id::BIGINT, 10, 'Microbiology', false, false, 1,
    lower(spec_type_desc) || ': ' || coalesce(lower(org_name), 'no growth')
FROM microbiologyevents
WHERE hadm_id IS NOT NULL AND spec_type_desc IS NOT NULL;

INSERT INTO mentions
SELECT DISTINCT hadm_id::BIGINT, 11, 'Abnormal laboratory values', false, false, 1, lower(label)
FROM labevents
JOIN d_labitems USING (itemid)
WHERE hadm_id IS NOT NULL AND flag = 'abnormal';

INSERT INTO mentions
SELECT hadm_id, 12, 'Medications', false, false, 1, unnest(drugs)
FROM medicated;

INSERT INTO mentions
SELECT hadm_id, 13, 'Diagnoses', false, true, place, lower(coalesce(title, 'code ' || code))
FROM codes
LEFT JOIN titles USING (code);

INSERT INTO mentions
SELECT
    hadm_id, 14, 'Discharge', false, false, unnest([1, 2]),
    unnest(['after ' || date_diff('day', admitted::DATE, discharged::DATE) || ' days', lower(discharge_location)])
FROM stays;

CREATE VIEW mentioned_stays AS
SELECT
    stays.hadm_id,
    stays.subject_id,
    codes,
    titles,
    drugs,
    CASE WHEN judged.hadm_id IS NULL OR left_out IS NOT NULL THEN NULL WHEN returned THEN 'yes' ELSE 'no' END AS returned,
    said.mentions
FROM stays
JOIN (
    SELECT
        hadm_id,
        list({'topic': topic, 'mention': mention, 'at_admission': at_admission, 'tells_diagnosis': tells_diagnosis}
            ORDER BY place, rank, mention) AS mentions
    FROM mentions
    WHERE mention IS NOT NULL
    GROUP BY hadm_id
) AS said USING (hadm_id)
LEFT JOIN coded USING (hadm_id)
LEFT JOIN medicated USING (hadm_id)
LEFT JOIN judged USING (hadm_id)
ORDER BY stays.hadm_id;
