-- Relations between concepts from the loaded rows of MRREL.
-- A row is read from right to left: concept CUI2 has the relation RELA to concept CUI1.
-- Pairs with only one relation between them; a few of each first concept and of each relation, by hash.
CREATE TABLE relation AS
WITH pair AS (
    SELECT first, second, any_value(relation) AS relation
    FROM (SELECT CUI2 AS first, RELA AS relation, CUI1 AS second FROM mrrel)
    GROUP BY first, second HAVING count(DISTINCT relation) = 1
), few AS (
    SELECT * FROM pair
    QUALIFY row_number() OVER (PARTITION BY first ORDER BY md5(first || second)) <= getvariable('per_concept')
)
SELECT * FROM few
QUALIFY row_number() OVER (PARTITION BY relation ORDER BY md5(second || first)) <= getvariable('per_relation');
