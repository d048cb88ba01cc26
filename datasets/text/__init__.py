"""Words: vocabularies and word vectors."""
