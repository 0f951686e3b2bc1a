-- The text of a stay: its discharge summary, reports and addenda, in chart order. No other note.
-- A report comes before its addenda of the same day; notes that their author marked as an error are left out.

CREATE VIEW summaries AS
SELECT
    hadm_id::BIGINT AS hadm_id,
    chartdate::DATE AS charted,
    coalesce(description = 'Addendum', false) AS addendum,
    row_id::BIGINT AS row_id,
    text
FROM noteevents
WHERE hadm_id IS NOT NULL AND iserror IS DISTINCT FROM '1';

-- An episode of several stays (readmission.sql) has the notes of all of them: here those of the earlier ones.
CREATE TABLE earlier_notes AS
SELECT judged.hadm_id, summaries.* EXCLUDE (hadm_id)
FROM judged, unnest(members) AS earlier (member)
JOIN summaries ON summaries.hadm_id = member
WHERE left_out IS NULL AND len(members) > 1 AND member <> judged.hadm_id;

-- Stays in parts of some thousands, by number, so that the text of a part fits in memory.
CREATE TABLE parts AS
SELECT min(hadm_id) AS first_id, max(hadm_id) AS last_id
FROM (SELECT hadm_id, (row_number() OVER (ORDER BY hadm_id) - 1) // 2000 AS part FROM stays)
GROUP BY part;

-- One row a stay and note of a part. For readmission counts what was charted by the day of discharge (by_discharge), also
-- what earlier stays of the episode left (not own); for the other tasks only the stay's own notes.
CREATE MACRO told_stays(first_id, last_id) AS TABLE
WITH notes AS (
    SELECT *, true AS own FROM summaries WHERE hadm_id BETWEEN first_id AND last_id
    UNION ALL
    SELECT *, false AS own FROM earlier_notes WHERE hadm_id BETWEEN first_id AND last_id
)
SELECT
    stays.hadm_id,
    stays.subject_id,
    codes,
    titles,
    drugs,
    CASE WHEN judged.hadm_id IS NULL OR left_out IS NOT NULL THEN NULL WHEN returned THEN 'yes' ELSE 'no' END AS returned,
    own,
    charted <= stays.discharged::DATE AS by_discharge,
    addendum,
    text
FROM stays
JOIN notes USING (hadm_id)
LEFT JOIN coded USING (hadm_id)
LEFT JOIN medicated USING (hadm_id)
LEFT JOIN judged USING (hadm_id)
WHERE stays.hadm_id BETWEEN first_id AND last_id
ORDER BY stays.hadm_id, charted, addendum, row_id;
