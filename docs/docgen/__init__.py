"""One module a generated page; each reads the code and answers text."""
