-- Readmission: is the patient readmitted within 30 days of discharge, for any cause?
--
-- 1. Episodes. A stay that begins by transfer on the day on which the stay before it ends goes on with that stay: the two
--    are one episode, with the discharge of the last. It is no return.
-- 2. Index. Every episode, once, by its last stay. Left out, and counted:
--      the patient died in hospital: nobody is left to return;
--      a newborn: born in hospital, not admitted for an illness;
--      discharged to another acute hospital (SHORT TERM HOSPITAL; DISC-TRAN CANCER/CHLDRN H; DISC-TRAN TO FEDERAL HC):
--        the illness is treated further elsewhere;
--      discharged to a hospice (HOSPICE-HOME; HOSPICE-MEDICAL FACILITY): no return is intended.
-- 3. Yes: the patient's next episode begins 0 to 30 days after the day of discharge.
--    No: it begins later, or there is none. A last stay is a no.
--    With the variable exclude_planned, a return that begins with an ELECTIVE admission is a no too.

CREATE TABLE episodes AS
WITH ordered AS (
    SELECT
        *,
        lag(discharged) OVER patient AS discharged_before,
        lag(died) OVER patient AS died_before
    FROM stays
    WINDOW patient AS (PARTITION BY subject_id ORDER BY admitted, hadm_id)
),
begun AS (
    SELECT
        *,
        -- How many episodes of the patient have begun: the number of this one.
        count(*) FILTER (WHERE NOT coalesce(
            admitted::DATE <= discharged_before::DATE
            AND NOT died_before
            AND (admission_location LIKE 'TRANSFER FROM%' OR admission_location LIKE 'TRSF WITHIN%'), false)
        ) OVER (PARTITION BY subject_id ORDER BY admitted, hadm_id) AS episode
    FROM ordered
)
SELECT
    subject_id,
    episode,
    list(hadm_id ORDER BY admitted, hadm_id) AS members,
    last(hadm_id ORDER BY admitted, hadm_id) AS hadm_id,
    min(admitted) AS admitted,
    last(discharged ORDER BY admitted, hadm_id) AS discharged,
    last(discharge_location ORDER BY admitted, hadm_id) AS discharge_location,
    first(admission_type ORDER BY admitted, hadm_id) AS admission_type,
    bool_or(died) AS died,
    bool_or(coalesce(admission_type = 'NEWBORN', false)) AS newborn
FROM begun
GROUP BY subject_id, episode;

CREATE TABLE judged AS
SELECT
    hadm_id,
    members,
    discharged,
    CASE
        WHEN died THEN 'readmission: died in hospital'
        WHEN newborn THEN 'readmission: a newborn'
        WHEN discharge_location IN ('SHORT TERM HOSPITAL', 'DISC-TRAN CANCER/CHLDRN H', 'DISC-TRAN TO FEDERAL HC')
            THEN 'readmission: discharged to another acute hospital'
        WHEN discharge_location IN ('HOSPICE-HOME', 'HOSPICE-MEDICAL FACILITY')
            THEN 'readmission: discharged to a hospice'
    END AS left_out,
    coalesce(
        date_diff('day', discharged::DATE, (lead(admitted) OVER patient)::DATE) BETWEEN 0 AND 30
        AND NOT (getvariable('exclude_planned') AND coalesce(lead(admission_type) OVER patient = 'ELECTIVE', false)), false)
        AS returned
FROM episodes
WINDOW patient AS (PARTITION BY subject_id ORDER BY admitted, hadm_id);
