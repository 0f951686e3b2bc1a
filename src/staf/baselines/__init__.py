"""What our methods are compared with: each baseline is a row of a table, tuned and scored as the others are."""
