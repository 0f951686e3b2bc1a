"""A router's experts as files that other tools load without staf."""
