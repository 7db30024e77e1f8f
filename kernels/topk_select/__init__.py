"""Selection of the best pages of a row by score: radix select, ascending output."""
