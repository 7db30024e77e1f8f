"""Small stages between the products of a decoder layer, and sampling after the last one."""
