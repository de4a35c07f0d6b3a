"""The report of a run: collect its data from artifacts, then render it as a page."""
