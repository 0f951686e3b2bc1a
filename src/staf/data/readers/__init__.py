"""Readers: corpora in the formats of their authors, one module a corpus or family, and what readers share (`shapes`, `stays`).

A reader is a function of the corpus's files, each with its part (`staf.data.layouts`), and the report. It yields the examples,
reports what it leaves out, and rejects records that do not fit: `ReadReport.each` names file and line, and decides whether
reading stops.
"""
