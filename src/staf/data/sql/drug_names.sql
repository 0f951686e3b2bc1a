-- One name for one drug, whatever its salt, strength, form or spelling.
--
--   Heparin Sodium                 heparin
--   Heparin Flush (10 units/ml)    heparin
--   Docusate Sodium (Liquid)       docusate
--   PredniSONE                     prednisone
--   Lidocaine 5% Patch             lidocaine
--   Potassium Chloride (Powder)    potassium chloride
--   Vitamin B-12 1000mcg           vitamin b12
--   D5 1/2NS                       none: a carrier fluid
--
-- 1. Lower case; text in brackets, and the mark *NF* (not on the formulary), go.
-- 2. Numbers with their units (5%, 0.5mg, 110mcg) go, and of "1:100000" the complete word. Digits inside a word (D5W) stay, and
--    so do those of a vitamin (B1 and B12 are two drugs).
-- 3. Words for form, route, release and use go; so do salts, but for minerals, where the salt is the drug
--    (potassium chloride and potassium phosphate are two drugs). The first word always stays.
-- 4. A short list of spellings and trade names is replaced (spellings).
-- 5. Carrier fluids and flushes are no recommendation: they have no name here (NULL).

CREATE TABLE dropped_words AS
SELECT unnest(string_split(
    'tab tabs tablet tablets cap caps capsule capsules soln solution susp suspension liquid elixir syrup powder packet oral'
    || ' iv im po sc sl pr ng inj injection inhaler inhalation inhaled mdi dpi neb nebs nebulizer nebulized diskus'
    || ' patch cream oint ointment lotion gel jelly spray drops drop rinse swish paste shampoo enema suppository supp'
    || ' nasal ophth opht ophthalmic otic topical vaginal rectal viscous mouthwash sublingual transdermal'
    || ' xl xr sr er cr ec la dr ir odt ss ds pf p.f hp generic brand'
    || ' immediate extended sustained delayed release extended-release immediate-release sustained-release disintegrating'
    || ' chewable concentrate concentrated sprinkles preserv free sugar replacement desensitization human regular'
    || ' flush lock picc cvl crrt hickman dwell drip infusion bolus premix syringe vial bag preservative and or placebo in with for'
    || ' mg mcg gram units unit ml meq mmol hr hour mg/ml mcg/ml units/ml mg/24 saline iso-osm',
    ' ')) AS word;

CREATE TABLE salts AS
SELECT unnest(string_split(
    'hcl hydrochloride hbr hydrobromide bromide chloride sodium sod na potassium calcium sulfate sulf phosphate citrate tartrate'
    || ' bitartrate succinate succ acetate maleate fumarate mesylate besylate tosylate bisulfate gluconate lactate'
    || ' nitrate hyclate proxetil axetil mofetil medoxomil propionate furoate dipropionate valerate xinafoate'
    || ' pamoate decanoate trihydrate monohydrate benzoate oxalate carbonate sulfonate disoproxil alfa magnesium',
    ' ')) AS word;

-- Drugs whose first word is one of these are named with their salt.
CREATE TABLE minerals AS
SELECT unnest(string_split(
    'potassium sodium calcium magnesium aluminum zinc ferrous ferric iron lithium bismuth silver selenium copper'
    || ' ammonium barium isosorbide k na',
    ' ')) AS word;

CREATE TABLE spellings AS
SELECT * FROM (VALUES
    ('humulin-r insulin', 'insulin'),
    ('insulin glargine', 'insulin'),
    ('insulin lispro', 'insulin'),
    ('sulfameth/trimethoprim', 'sulfamethoxazole-trimethoprim'),
    ('unasyn', 'ampicillin-sulbactam'),
    ('zosyn', 'piperacillin-tazobactam'),
    ('artificial tear', 'artificial tears'),
    ('multivitamin', 'multivitamins'),
    ('multiple vitamins', 'multivitamins'),
    ('multiple vitamins liq', 'multivitamins'),
    ('multivitamins w/minerals', 'multivitamins'),
    ('xopenex', 'levalbuterol'),
    ('lumigan', 'bimatoprost'),
    ('namenda', 'memantine'),
    ('exelon', 'rivastigmine'),
    ('tarceva', 'erlotinib'),
    ('pletal', 'cilostazol'),
    ('dostinex', 'cabergoline'),
    ('vigamox', 'moxifloxacin'),
    ('acular', 'ketorolac'),
    ('hydromorphone-hp', 'hydromorphone'),
    ('sodium bic', 'sodium bicarbonate'),
    ('sodium bicar', 'sodium bicarbonate'),
    ('sodium bicarb', 'sodium bicarbonate'),
    ('sodium bicarbo', 'sodium bicarbonate'),
    ('neutra-phos', 'potassium-sodium phosphate')
) AS known (written, name);

CREATE TABLE carriers AS
SELECT unnest([
    'sodium chloride', 'ns', 'sw', 'lr', 'iso-osmotic dextrose', 'sterile water', 'water',
    'lactated ringers', 'lactated', 'ringers', 'normocarb', 'plasma-lyte', 'bag', 'vial', 'syringe', 'soln', 'dextrose'
]) AS name;

-- Every spelling in PRESCRIPTIONS, once, and its name. Only main drugs: BASE rows are carrier fluids, ADDITIVE rows
-- what is mixed into them.
CREATE TABLE drug_names AS
WITH written AS (
    SELECT DISTINCT drug FROM prescriptions WHERE drug_type = 'MAIN'
),
cleaned AS (
    SELECT
        drug,
        -- Brackets, and numbers with their units.
        regexp_replace(
            regexp_replace(replace(lower(drug), '*nf*', ' '), '\bvitamin ([a-z])[ -]?([0-9]{1,2})\b', 'vitamin \1\2'),
            '\([^)]*\)?|\b[0-9][0-9.,:]*( ?%| ?m[cl]?g\b| ?ml\b| ?g\b)?(/[0-9.]*(ml|hr|h)\b)?', ' ', 'g') AS clean
    FROM written
),
worded AS (
    SELECT drug, list_filter(list_transform(string_split_regex(clean, '[\s,;]+'), lambda part: trim(part, '.-/*%)')),
        lambda part: part <> '') AS words
    FROM cleaned
),
numbered AS (
    SELECT drug, words[1] AS first_word, unnest(words) AS word, generate_subscripts(words, 1) AS place
    FROM worded
),
shortened AS (
    SELECT drug, string_agg(word, ' ' ORDER BY place) AS short
    FROM numbered
    WHERE place = 1
        OR (
            word NOT IN (SELECT word FROM dropped_words)
            AND (first_word IN (SELECT word FROM minerals) OR word NOT IN (SELECT word FROM salts))
        )
    GROUP BY drug
)
SELECT drug, nullif(coalesce(spellings.name, short), '') AS name
FROM shortened
LEFT JOIN spellings ON spellings.written = short
-- Concentrated dextrose (50 %) is given for low blood sugar; thinner ones carry other drugs.
WHERE (
    coalesce(spellings.name, short) NOT IN (SELECT name FROM carriers)
    AND NOT regexp_full_match(short, 'd[0-9]+(w|ns|lr)?( .*)?')  -- D5W, D5 1/2NS, D10W with electrolytes
) OR (short = 'dextrose' AND regexp_matches(drug, '\b50(\.0)? ?%'));
