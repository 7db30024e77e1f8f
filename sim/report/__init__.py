"""The report of a study's folder or a run's: one page, and its figures beside it.

The one rule: a report is a function of the results folder. It runs nothing, fetches nothing, and
the same results give the same bytes.
"""
