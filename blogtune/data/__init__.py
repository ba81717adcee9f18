"""From a blog's conversations to question/answer pairs, split into train, validation and test."""
