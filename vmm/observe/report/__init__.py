"""A run as one page of HTML: `gather` counts what the records say, `page` draws it."""
