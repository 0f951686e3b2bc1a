"""`staf serve`: one base and many routers in memory, asked over HTTP; requests for different tasks share a batch."""
