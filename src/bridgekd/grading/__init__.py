"""Pure: a text against its gold answer."""
