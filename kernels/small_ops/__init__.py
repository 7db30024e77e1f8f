"""Small stages between the products of a decoder layer."""
