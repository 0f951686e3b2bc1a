-- Admissions of MIMIC-III with their times and numbers as such.
-- Tables: https://mimic.mit.edu/docs/iii/tables/

CREATE TABLE stays AS
SELECT
    hadm_id::BIGINT AS hadm_id,
    subject_id::BIGINT AS subject_id,
    admittime::TIMESTAMP AS admitted,
    dischtime::TIMESTAMP AS discharged,
    admission_type,
    admission_location,
    discharge_location,
    -- A death in hospital is recorded in three columns; any of them counts.
    coalesce(hospital_expire_flag = '1', false)
        OR coalesce(discharge_location = 'DEAD/EXPIRED', false)
        OR deathtime IS NOT NULL AS died
FROM admissions;
