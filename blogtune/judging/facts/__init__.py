"""Are the values that make an answer right in it? A measure that needs no model."""
