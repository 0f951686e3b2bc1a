-- From the four files of the Metathesaurus to what the examples are made of. Each step makes one table; a step that
-- reads a file reads it once, from beginning to end, and keeps only what is wanted of it.

-- Definitions that are not suppressed and not too long. Their language is that of the atom that they belong to.
-- table definition from MRDEF
CREATE TABLE definition AS
SELECT CUI AS cui, AUI AS aui, ATUI AS atui, DEF AS text, fits
FROM mrdef
WHERE NOT fits OR (SUPPRESS = 'N' AND length(DEF) <= getvariable('longest_definition'));

-- English names, not suppressed, of the concepts that have such a definition.
-- The preferred one comes first by TS, then STT, then ISPREF, as the Reference Manual ranks them.
-- table atom from MRCONSO
CREATE TABLE atom AS
SELECT
    CUI AS cui, AUI AS aui, STR AS name,
    4 * (TS = 'P')::INTEGER + 2 * (STT = 'PF')::INTEGER + (ISPREF = 'Y')::INTEGER AS rank,
    fits
FROM mrconso
WHERE NOT fits OR (LAT = 'ENG' AND SUPPRESS = 'N' AND CUI IN (SELECT cui FROM definition));

-- table semantic_type from MRSTY
CREATE TABLE semantic_type AS
SELECT CUI AS cui, TUI AS tui, STN AS tree_number, STY AS name, fits
FROM mrsty
WHERE NOT fits OR CUI IN (SELECT cui FROM atom);

-- Concepts with an English name, an English definition and a semantic type: one name and one definition each.
-- table concept
CREATE TABLE concept AS
WITH preferred AS (
    SELECT cui, (list(name ORDER BY rank DESC, aui))[1] AS name FROM atom GROUP BY cui
), english AS (
    SELECT definition.cui, (list(text ORDER BY md5(atui), text))[1] AS definition
    FROM definition JOIN atom USING (cui, aui)
    GROUP BY definition.cui
)
SELECT cui, name, definition
FROM preferred JOIN english USING (cui)
WHERE length(name) <= getvariable('longest_name') AND cui IN (SELECT cui FROM semantic_type);

-- The concepts that examples are made of: those whose CUI has the least hash, the same on any machine.
-- table chosen
CREATE TABLE chosen AS
SELECT * FROM concept
QUALIFY row_number() OVER (ORDER BY md5(cui), cui) <= getvariable('concepts');

-- A row of MRREL is read from right to left: concept CUI2 has the relation RELA to concept CUI1.
-- table link from MRREL
CREATE TABLE link AS
SELECT CUI2 AS first, RELA AS relation, CUI1 AS second, fits
FROM mrrel
WHERE NOT fits OR (
    SUPPRESS = 'N' AND list_contains(getvariable('relations'), RELA) AND CUI1 <> CUI2
    AND CUI2 IN (SELECT cui FROM chosen) AND CUI1 IN (SELECT cui FROM concept)
);

-- Pairs that one relation alone holds between; a few of each first concept and of each relation, by hash.
-- table relation
CREATE TABLE relation AS
WITH pair AS (
    SELECT first, second, any_value(relation) AS relation
    FROM link GROUP BY first, second HAVING count(DISTINCT relation) = 1
), few AS (
    SELECT * FROM pair
    QUALIFY row_number() OVER (PARTITION BY first ORDER BY md5(first || second)) <= getvariable('per_concept')
)
SELECT * FROM few
QUALIFY row_number() OVER (PARTITION BY relation ORDER BY md5(second || first)) <= getvariable('per_relation');
