-- ICD coding: the ICD-9-CM diagnosis codes of each stay.
--
-- 1. Diagnoses only; procedures have codes of their own in another table.
-- 2. A code is text: '0389' and '389' are two codes, 'V053' is one.
-- 3. A code counts once a stay, at its first place (seq_num: the order of importance for billing).
-- 4. A row without a code is left out.
-- 5. Titles come from D_ICD_DIAGNOSES; a code that is not in it has none.

CREATE TABLE titles AS
SELECT icd9_code AS code, min(long_title) AS title
FROM d_icd_diagnoses
GROUP BY icd9_code;

CREATE TABLE codes AS
SELECT
    hadm_id::BIGINT AS hadm_id,
    icd9_code AS code,
    min(try_cast(seq_num AS INTEGER)) AS place
FROM diagnoses_icd
WHERE icd9_code IS NOT NULL
GROUP BY ALL;

CREATE TABLE coded AS
SELECT
    hadm_id,
    list(code ORDER BY place NULLS LAST, code) AS codes,
    list(coalesce(title, '') ORDER BY place NULLS LAST, code) AS titles
FROM codes
LEFT JOIN titles USING (code)
GROUP BY hadm_id;

-- Codes that were read as numbers on the way here: '0389' became '389'. Such a code is shorter than any diagnosis code
-- (three characters), or has no title where the code with its zeros has one.
CREATE TABLE lost_zeros AS
SELECT DISTINCT code
FROM codes
WHERE regexp_full_match(code, '[0-9]+')
    AND (
        length(code) < 3
        OR (
            code NOT IN (SELECT code FROM titles)
            AND ('0' || code IN (SELECT code FROM titles) OR '00' || code IN (SELECT code FROM titles))
        )
    );
