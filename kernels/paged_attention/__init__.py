"""Paged decode attention, dense over all pages or over selected ones; 16-, 8- and 4-bit caches."""
