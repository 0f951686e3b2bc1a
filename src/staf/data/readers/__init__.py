"""Readers: one module a corpus, and the shapes of example that several share (`shapes`, `term_choices`).

A reader has two functions. `files(folder)` returns its source files, laid out as in the package that carries them or as their
authors distribute them, and raises MissingData where one is not there. `read(folder, report)` yields the examples: it reports
what it leaves out, and rejects rows that do not fit (BadData names file and line; the report decides whether reading stops).
"""
