"""Text: vocabularies, word numbers and word vectors."""
