-- From the loaded files of the Metathesaurus (mrdef, mrconso, mrsty) to the concepts that examples are made of.
-- The preferred name of a concept comes first by TS, then STT, then ISPREF, as the Reference Manual ranks them.
-- The language of a definition is that of the atom that it belongs to.

CREATE VIEW definition AS SELECT CUI AS cui, AUI AS aui, ATUI AS atui, DEF AS text FROM mrdef;

CREATE VIEW atom AS
SELECT
    CUI AS cui, AUI AS aui, STR AS name,
    4 * (TS = 'P')::INTEGER + 2 * (STT = 'PF')::INTEGER + (ISPREF = 'Y')::INTEGER AS rank
FROM mrconso;

CREATE VIEW semantic_type AS SELECT CUI AS cui, STN AS tree_number, STY AS name FROM mrsty;

-- Concepts with an English name, an English definition and a semantic type: one name and one definition each.
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
CREATE TABLE chosen AS
SELECT * FROM concept
QUALIFY row_number() OVER (ORDER BY md5(cui), cui) <= getvariable('concepts');
