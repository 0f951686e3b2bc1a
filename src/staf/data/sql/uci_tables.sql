-- The encounters of "Diabetes 130-US hospitals", one row each, '?' read as missing.
--
-- Codes: the file holds three-character categories of ICD-9-CM, and for diabetes (250) up to five characters. They were
-- numbers once, so leading zeros are lost ('38' is 038, septicemia): they are put back. Codes count once an encounter.
-- Drugs: one column each; 'No' is not given, 'Steady', 'Up' and 'Down' are given.

CREATE MACRO known(cell) AS nullif(trim(cell), '?');

CREATE MACRO category(cell) AS CASE
    WHEN regexp_matches(known(cell), '^[0-9]') THEN
        lpad(string_split(trim(cell), '.')[1], 3, '0') || substr(trim(cell), length(string_split(trim(cell), '.')[1]) + 1)
    ELSE known(cell)
END;

CREATE MACRO in_order(cells) AS list_filter(cells, lambda cell, place: cell IS NOT NULL AND list_position(cells, cell) = place);

CREATE TABLE drug_columns AS
SELECT
    encounter_id::BIGINT AS encounter_id,
    list(drug ORDER BY drug) AS drugs,
    list(drug || ' ' || lower(state) ORDER BY drug) AS doses
FROM (
    UNPIVOT diabetic_data ON
        "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide", "glyburide",
        "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone", "tolazamide", "examide",
        "citoglipton", "insulin", "glyburide-metformin", "glipizide-metformin", "glimepiride-pioglitazone",
        "metformin-rosiglitazone", "metformin-pioglitazone"
    INTO NAME drug VALUE state
)
WHERE state <> 'No'
GROUP BY encounter_id;

CREATE TABLE encounters AS
SELECT
    data.* EXCLUDE (encounter_id),
    data.encounter_id::BIGINT AS encounter_id,
    coalesce(drugs, []) AS drugs,
    coalesce(doses, []) AS doses,
    in_order([category(diag_1), category(diag_2), category(diag_3)]) AS codes,
    -- Expired (11, 19, 20, 21) or discharged to a hospice (13, 14): no return can be expected.
    discharge_disposition_id IN ('11', '13', '14', '19', '20', '21') AS gone
FROM diabetic_data AS data
LEFT JOIN drug_columns ON drug_columns.encounter_id = data.encounter_id::BIGINT;
