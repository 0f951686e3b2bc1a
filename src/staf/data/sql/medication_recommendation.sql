-- Medication recommendation: the drugs that each stay's orders name, each once, by name (drug_names.sql).
-- All of a stay's prescriptions count, whenever in the stay they begin; what is asked is asked at admission.

CREATE TABLE medicated AS
SELECT hadm_id::BIGINT AS hadm_id, list(DISTINCT name ORDER BY name) AS drugs
FROM prescriptions
JOIN drug_names USING (drug)
WHERE drug_type = 'MAIN' AND name IS NOT NULL
GROUP BY 1;
