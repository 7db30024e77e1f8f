"""Writes a step's keys and values into the paged cache and keeps the pages' minima and maxima."""
