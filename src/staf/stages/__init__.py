"""The stages as steps on folders: each is skipped if its result exists, and resumes after an interruption.

The command line and the experiments call only these. The base is loaded on first use, so a step that has nothing to do loads
no model.
"""
